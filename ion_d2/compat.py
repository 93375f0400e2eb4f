"""What differs between the supported versions of Detectron2 (0.5, 0.6 and main).

Main still calls itself 0.6, so features are looked for; versions are never compared.
"""

from __future__ import annotations

from detectron2.engine import DefaultTrainer

# Whether DefaultTrainer keeps the optimizer's state (momentum) in its checkpoints. Before November
# 2021 it did not, and a resumed run silently started with none.
TRAINER_SAVES_OPTIMIZER = "load_state_dict" in vars(DefaultTrainer)
