// Shared by the scripts of the report: sentences about scores, and access to training examples.

const WORDS = DATA.words;

function withUnit(text) {
  return WORDS.effect && WORDS.unit ? text + " " + WORDS.unit : text;
}

// What removing a training example with this score would do, in a sentence that suits the measurement.
function removal(score) {
  if (score === 0) return `Removing it would not change the ${WORDS.quantity}.`;
  if (WORDS.loss) {
    const direction = score > 0 ? "raise" : "lower";
    return WORDS.effect
      ? `Removing it would ${direction} the loss by ${withUnit(plain(Math.abs(score)))}.`
      : `Removing it would ${direction} the loss; the size of a RANK score means nothing.`;
  }
  return WORDS.effect
    ? `Removing it changes the ${WORDS.quantity} by ${withUnit(signed(-score))}.`
    : `Removing it ${score > 0 ? "lowers" : "raises"} the ${WORDS.quantity}; the size of a RANK score means nothing.`;
}

// ---- training examples ---------------------------------------------------------------------------------------------

const TRAIN = {
  count: Array.isArray(DATA.train.ids) ? DATA.train.ids.length : DATA.train.ids.count,
  id: (place) => (Array.isArray(DATA.train.ids) ? DATA.train.ids[place] : String(place)),
  names: DATA.train.labels.names,
  codes: new (DATA.train.labels.width === 1 ? Uint8Array : Uint32Array)(bytes(DATA.train.labels.codes)),
  label: (place) => TRAIN.names[TRAIN.codes[place]],
  preview: (place) => DATA.train.previews[place],
};

const decoded = new Map();

// {places, scores}: the scores on the page for one query; `places` is null when all training examples are there.
function scoresOf(q) {
  if (!decoded.has(q)) {
    const entry = DATA.queries[q];
    decoded.clear();
    decoded.set(q, {
      places: entry.places ? new Uint32Array(bytes(entry.places)) : null,
      scores: new Float32Array(bytes(entry.scores)),
    });
  }
  return decoded.get(q);
}
