// Where the sheet of the served page expects a server, there is none: everything is answered here.

/** A question that stays without an answer; the message is a sentence for people. */
export class Trouble extends Error {}
