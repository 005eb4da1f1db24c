// What is said about an answer: labels, and when none is given. As in tinylens.classifier.

/**
 * Return a row as POST /predict gives it.
 * @param {Float32Array} probabilities
 * @param {?number} ood_score
 * @param {object} card the model's
 * @param {number[]} shares at which the card keeps the ood_score of ordinary images
 * @param {number} top how many classes to give
 */
export function evaluated(probabilities, ood_score, card, shares, top) {
  const order = [...probabilities.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  const ranked = order.map((row) => ({ label: card.class_names[row], probability: probabilities[row] }));
  const { label, probability: confidence } = ranked[0];
  const { selective } = card;
  const ordinary = selective?.ordinary?.length ? selective.ordinary : null;
  const share = ood_score !== null && ordinary ? between(ood_score, ordinary, shares) : null;
  let unknown = tooUnsure(confidence, selective);
  if (ood_score !== null && ordinary && aboveOodLimit(ood_score, selective, shares)) {
    unknown = `it is unlike what the model was trained on: more unusual than ${(100 * share).toFixed(1)} % of ordinary images`;
  }
  return { label, confidence, top: ranked.slice(0, top), unknown, ood_score: share };
}

function tooUnsure(confidence, selective) {
  const level = selective?.levels.find(({ max_error }) => max_error === selective.max_error);
  if (!level || confidence >= level.threshold) return null;
  const share = Number((100 * level.max_error).toPrecision(6));
  return `its confidence is under ${level.threshold.toFixed(3)}, from which on at most ${share} % of answers are wrong`;
}

function aboveOodLimit(ood_score, { refused, ordinary }, shares) {
  if (refused === null || refused === undefined) return false;
  return !(ood_score <= between(1 - refused, shares, ordinary)); // also what is not a number
}

/** Return where `x` lies among ascending `xs`, as a place between `ys`, like numpy.interp. */
function between(x, xs, ys) {
  if (x <= xs[0]) return ys[0];
  if (x >= xs.at(-1)) return ys.at(-1);
  let right = xs.findIndex((value) => value > x);
  if (right < 0) return NaN;
  const left = right - 1;
  return ys[left] + ((ys[right] - ys[left]) / (xs[right] - xs[left])) * (x - xs[left]);
}
