"""The namespace `uw.hf`: from a transformer and its data set to a model and its training examples.

>>> import upweight as uw
>>> sorted(uw.hf.__all__)
['TokenLoss', 'causal_lm', 'classifier', 'examples', 'from_trainer', 'seq2seq']
"""

from __future__ import annotations

from upweight.models.huggingface.dataset_examples import examples
from upweight.models.huggingface.from_trainer import from_trainer
from upweight.models.huggingface.losses import TokenCrossEntropy as TokenLoss
from upweight.models.huggingface.tasks import causal_lm, classifier, seq2seq

__all__ = ["TokenLoss", "causal_lm", "classifier", "examples", "from_trainer", "seq2seq"]
