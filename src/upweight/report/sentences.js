// Sentences about scores, for the scripts of the report and of the viewer.

const WORDS = DATA.words;

function withUnit(text) {
  return WORDS.effect && WORDS.unit ? text + " " + WORDS.unit : text;
}

// What removing a training example with this score would do, in a sentence that suits the measurement.
function removal(score) {
  if (score === 0) return `Removing it would not change the ${WORDS.quantity}.`;
  if (WORDS.refuted) {
    const direction = (score > 0) === WORDS.loss ? "raise" : "lower";
    return `By its score, removing it would ${direction} the ${WORDS.quantity}, but such scores do not predict retraining here.`;
  }
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
