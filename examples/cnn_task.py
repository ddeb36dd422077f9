"""The net of cnn.py for the command line: a task file says what is explained, and the commands ask the questions.

upweight store build examples/cnn_task.py -o store/
upweight explain examples/cnn_task.py --store store/
"""

from __future__ import annotations

from cnn import examples, loss, train_net

import upweight as uw

train, queries = examples()
model = uw.TorchModel(train_net(train), loss)
