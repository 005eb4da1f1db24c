"""The input doctor: what is unlike the training pictures about a picture, and putting that right.

It knows nothing of any data set: a small reference, worked out from the training pictures when a
model is exported (`study`), is all that it judges by (`examine`). What it is allowed to, it puts
right (`treat`). It sees decoded pictures before they are made small, and opens none itself.
"""

from tinylens.doctor.examining import KINDS, UNJUDGED, Examination, Finding, examine
from tinylens.doctor.reference import Reference
from tinylens.doctor.studying import study
from tinylens.doctor.treating import Doctor, allowed_kinds, treat

__all__ = [
    "KINDS",
    "UNJUDGED",
    "Doctor",
    "Examination",
    "Finding",
    "Reference",
    "allowed_kinds",
    "examine",
    "study",
    "treat",
]
