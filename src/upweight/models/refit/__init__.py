"""The generic family: every estimator with the interface of scikit-learn, explained by cloning and refitting it.

`reader` is the model reader. `model` holds the model, `outputs` which predictions are measured, `seeds` how random
estimators get seeds, and `sample_weights` how weights reach `fit`.
"""

from upweight.models.refit.reader import read as read
from upweight.models.refit.reader import reads as reads
