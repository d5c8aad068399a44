import pytest
import torch
from ignite.engine import Engine
from torch import nn

from medtl_monai.bundle import Checkpoints
from medtl_monai.model import Model

MODEL = Model(task="classification", classes=["a", "b"], backbone="resnet18", image_size=32, mean=[0.5], std=[0.5])


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({1: 0.5, 2: 0.7, 3: 0.6}, 2),
        ({3: 0.1}, 3),  # validated at the last epoch alone
        ({2: 0.6, 3: float("nan")}, 2),
        ({}, 3),  # never: the newest
    ],
)
def test_the_best_checkpoint_is_that_of_the_highest_validation_or_the_newest_before_any(tmp_path, values, best):
    network, validator = nn.Linear(1, 1), Engine(lambda engine, batch: None)
    trainer = Engine(lambda engine, batch: nn.init.constant_(network.weight, engine.state.epoch))

    def validate(engine):
        if engine.state.epoch in values:
            validator.state.metrics["auc"] = values[engine.state.epoch]

    trainer.add_event_handler("EPOCH_COMPLETED", validate)
    Checkpoints(str(tmp_path), {"model": network}, MODEL, validator, "auc").attach(trainer)
    validator.state.metrics, trainer.state.rank = {}, 0
    trainer.run([0], max_epochs=3)
    kept = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (kept["epoch"], kept["model"]["weight"].item()) == (best, best)
