"""The language model of transformer.py for the command line.

upweight store build examples/transformer_task.py -o store/
upweight explain examples/transformer_task.py --store store/
"""

from __future__ import annotations

import torch
from transformer import examples, sentence_loss, train_net

import upweight as uw

train, queries = examples()
model = uw.TorchModel(train_net(torch.from_numpy(train.x)), sentence_loss)
