"""Targets of the network benchmarks, and why some of them are missed."""

from __future__ import annotations

# Our method with a target, the peer with which it is compared, and the peer's least multiple of its processor time.
TARGETS = {
    "softmax": ("upweight Hessian", "pyDVL Direct", 4.0),
    "mnist": ("upweight GaussNewton", "pyDVL Direct", 4.0),
    "mlp": ("upweight EmpiricalFisher", "kronfluence EK-FAC, damping None", 100.0),
    "cnn": ("upweight EmpiricalFisher", "kronfluence EK-FAC, damping None", 18.0),
    "spoken": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
    "adult": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
    "narrow": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
    "resnet": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
    "depthwise": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
    "gpt": ("upweight EmpiricalFisher", "kronfluence EK-FAC, damping None", 3.0),
    "lora": ("upweight EKFAC", "kronfluence EK-FAC, damping None", 2.0),
}
NO_TARGET = ("", "", 0.0)
COMPARED = ("GaussNewton", "EKFAC", "KFAC", "EmpiricalFisher", "Diagonal", "Identity")
# What `Influence()` takes; the choice depends on the sizes alone.
DEFAULTS = {
    **dict.fromkeys(("mlp", "cnn", "spoken", "lstm", "adult", "narrow", "resnet", "depthwise", "gpt", "lora"), "EKFAC"),
    **dict.fromkeys(("softmax", "mnist"), "GaussNewton"),
}
DEFAULT_NOTES = [
    "The target was set before the tasks on spoken digits, on the census table and on CIFAR-10 were made. The default "
    "is EK-FAC on all nets that are neither linear nor small, so it has its LDS; the flops that choose it are counted, "
    "not measured.",
    "No curvature is the best one everywhere. The Gauss–Newton matrix is better than EK-FAC on MNIST, the CNN, "
    "spoken digits and the narrow ResNet, and worse on the census table (and on an MLP for Fashion-MNIST, .547 against "
    ".589). It was therefore not made the default for its higher price. "
    "The empirical Fisher has a higher LDS than EK-FAC at "
    "a lower price on seven of the nine nets that are not linear, each time within intervals that overlap, and a lower "
    "one beyond them on the census table and on sequences.",
    "Fashion-MNIST was not at hand where these tables were made, so it has no row of its own. Another LoRA task is "
    "under “Fine-tunes of language models”: there EK-FAC is the best curvature at 10 % removed, and level with the "
    "empirical Fisher at 50 %.",
    "Epochs of the smallest nets take milliseconds, so their multiples are large; less than 5·10¹¹ flops are always "
    "allowed.",
]
DEFAULT_TARGET = (
    "the default reaches the LDS of EK-FAC with all directions in at most 60 forward-backward passes, or a few seconds"
)
HALF_OF_KRONFLUENCE = (
    "Set beforehand: EK-FAC in at most half of kronfluence's processor seconds, at its LDS or better (less .01)."
)
IN_TURN = (
    "EK-FAC of both packages was measured in turn, medians of three rounds (`--in-turn 3`); the other rows are of runs "
    "under other loads."
)
# The targets that were set before these nets were trained, and why some of them are missed.
STATED = {
    "softmax": (
        "Set beforehand: .1 s at the peers' LDS, when pyDVL took .40 s. The time is met; the ratio of four is missed "
        "because pyDVL takes .26 s here."
    ),
    "mnist": "GaussNewton, the default, is the Hessian here; `Hessian()` takes conjugate gradients at this size.",
    "mlp": (
        "Set beforehand: LDS .55 in .7 s, and .60 in 8 s by the Gauss–Newton matrix, when kronfluence reached "
        ".456 on nets that were trained elsewhere. The times are met in seconds; .7 s were 7 plain epochs on those "
        "nets, and here it is more epochs. The LDS are missed; on these nets kronfluence reaches .307, and the "
        "ratios to it are "
        "1.24 and 1.41 (set: 1.21 and 1.32). Seconds vary by a third with other work on the machine (EmpiricalFisher "
        ".41 to "
        ".57), and so does the ratio of times (84 and 90 were measured)."
    ),
    "cnn": (
        "Set beforehand: LDS .31 in 1.4 s (6 plain epochs on that net), and better by the Gauss–Newton matrix, when "
        "kronfluence reached .25 in 25 s on a net that was trained elsewhere. The time is met in epochs; in "
        "seconds 1.2 to 1.9 were measured, as an epoch took .3 to .6. The LDS are missed. Another seed predicts this "
        "truth with only .26, and the intervals of EmpiricalFisher, EKFAC, kronfluence and GaussNewton "
        "overlap: which of them is better is not determined. Smaller learning rates do not determine it better "
        "(between two seeds "
        "on 12 halves: .30 at .05, .28 at .02, .01 at .01). The ratio of times is missed because kronfluence "
        "takes 12 to 15 s here. The net was trained again for this table: most LDS are up "
        "to .03 lower than in the last one."
    ),
    **dict.fromkeys(("spoken", "adult"), HALF_OF_KRONFLUENCE),
    "lstm": (
        "The net has heard 1,500 other recordings before; trained from nothing, another seed predicts the truth with "
        ".20. kronfluence and captum see the last layer alone, which holds 650 of 21,386 parameters; pyDVL's EK-FAC "
        "refuses the LSTM, and torch's vmap, on which dattri's TRAK is built, has no rule for it."
    ),
    "narrow": (
        f"{HALF_OF_KRONFLUENCE} Both are met (4.4 times; 2.1 on an older machine). {IN_TURN} "
        "pyDVL and TRAK as for the depthwise net."
    ),
    "resnet": (
        f"{HALF_OF_KRONFLUENCE} Both are met (3.4 times; on an older machine 1.96 was measured). "
        f"{IN_TURN} With all directions in place of two drawn ones, the LDS is the same "
        "at five times the price. pyDVL as for the depthwise "
        "net."
    ),
    "depthwise": (
        f"{HALF_OF_KRONFLUENCE} Both are met (2.7 times; 1.17 on an older machine, where "
        f"kronfluence took 6.2 plain epochs and here 9). {IN_TURN} "
        "captum's TracInCP does not take grouped convolutions, pyDVL's EK-FAC only linear layers, and pyDVL's Nyström "
        "form of rank 50 does not end within 110 processor seconds or 14 GB; its direct form would hold a Hessian of "
        "31,946² numbers. TRAK's Gram matrix of 512 directions is close to singular with 500 examples."
    ),
    "lora": (
        "Adapters of rank 8 on all queries and values of six blocks, and a linear head: 74,498 parameters of 22.7 "
        "million; a pass goes through the whole encoder. Other packages were not run. GaussNewton is left out: a "
        "product for each query and step goes through the whole encoder."
    ),
    "gpt": (
        "Set beforehand: LDS .63 in 8 s (3 plain epochs on that net), when kronfluence reached .62 in 25 s, and "
        "better "
        "by the Gauss–Newton matrix. EmpiricalFisher meets LDS and seconds, not the epochs: it makes 2.4 passes over "
        "the training set, since its gradients exceed the memory limit. It misses what the peer reaches here; EKFAC "
        "reaches it, in the peer's time. GaussNewton is left out: a product with "
        "32 vectors is 32 × 8 × tokens × parameters = 3.5e12 flops, more than a minute, and conjugate gradients need "
        "several such products, which exceeds the limit. On 8 of the queries two and four steps of them, with "
        "EK-FAC as preconditioner, reached .744 and .736, while EKFAC has .739: the gain is not worth the cost."
    ),
}
