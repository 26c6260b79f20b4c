"""How each model of --modelName is trained. A new way is a file here and a line below.

A trainer is called as fit is: fit(training, train, valid, config, metrics). It goes on from where the Training stands, keeps
in it all that it needs to go on, and yields an EpochResult after each epoch. For torchrun it must do what fit does with
`train.ranks`: windows then hold one rank's share of their clips.
"""

from trains.self_mm import fit

TRAINERS = {"self_mm": fit}
