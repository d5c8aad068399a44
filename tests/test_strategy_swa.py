"""Stochastic weight averaging in the trainer, against means and statistics that are worked out by hand."""

import copy

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from test_strategies import bound, loader, toy, trainer
from torch import nn

from medtl_monai.bundle import EpochSeed
from medtl_monai.strategies import build
from medtl_monai.utils import UserError
from medtl_monai.variants import convert_norm


def dropping():
    """With dropout before a batch norm, which would see it."""
    net = toy()
    net.stem.append(nn.Dropout(0.5))
    return net


def epochs(spec, count=5, net=None):
    """The network's state after each epoch, and the strategy."""
    seen = []
    strategy = bound(build(spec))
    engine = trainer(strategy, net or dropping(), count)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(copy.deepcopy(e.network.state_dict())))
    engine.run()
    return seen, strategy


def statistics(state, images):
    """Mean and variance that each batch norm meets with these weights, averaged over the batches, in double."""
    w = {key: value.double() for key, value in state.items()}
    found = {"stem.1": [], "body.1": []}
    for image in images:
        x = image.double()
        for name, pairs in found.items():
            block = name.split(".", maxsplit=1)[0]
            x = nn.functional.conv2d(x, w[f"{block}.0.weight"], w[f"{block}.0.bias"], padding=1)
            rows = x.transpose(0, 1).flatten(1)
            pairs.append((rows.mean(1), rows.var(1)))
            scaled = (rows - rows.mean(1, keepdim=True)) / (rows.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            rows = (scaled * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]).relu()
            x = rows.unflatten(1, (len(image), *x.shape[2:])).transpose(0, 1)
    return {name: [sum(values) / len(images) for values in zip(*pairs, strict=True)] for name, pairs in found.items()}


@pytest.mark.parametrize(("batches", "used"), [(9, slice(None)), (1, slice(-1, None))])
def test_the_last_epochs_hold_the_mean_of_their_weights_with_statistics_of_its_own(batches, used):
    plain, _ = epochs("finetune")
    averaged, strategy = epochs(f"swa(start=0.4, batches={batches})")
    for one, other in zip(plain[:2], averaged[:2], strict=True):  # 2 of 5 epochs come before
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    parameters = [name for name, _ in dropping().named_parameters()]
    for last in (3, 4, 5):
        found = averaged[last - 1]
        for name in parameters:
            mean = torch.stack([plain[epoch - 1][name].double() for epoch in range(3, last + 1)]).mean(0)
            torch.testing.assert_close(found[name].double(), mean, rtol=1e-5, atol=1e-6)
        wanted = statistics(found, [batch["image"] for batch in loader()][used])
        for name, (mean, variance) in wanted.items():
            torch.testing.assert_close(found[f"{name}.running_mean"].double(), mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[f"{name}.running_var"].double(), variance, rtol=1e-4, atol=1e-5)
    own = dict(strategy.average.named_buffers())  # training itself, its statistics included, is what it was
    assert all(torch.equal(own[key.replace(".", "/")], value) for key, value in plain[-1].items())
    assert strategy._seen == []


def test_what_is_frozen_does_not_move_by_one_bit():
    start = dropping().state_dict()
    averaged, _ = epochs("freeze + swa(start=0)", 3)
    plain, _ = epochs("freeze", 3)
    for state in averaged:
        assert all(torch.equal(state[key], value) for key, value in start.items() if not key.startswith("fc"))
    mean = torch.stack([state["fc.weight"].double() for state in plain]).mean(0)
    torch.testing.assert_close(averaged[-1]["fc.weight"].double(), mean, rtol=1e-5, atol=1e-6)


def test_held_statistics_stay_and_the_others_are_measured_behind_them():
    start = dropping().state_dict()
    averaged, _ = epochs("partial_freeze(blocks=1) + swa(start=0)", 2)
    assert torch.equal(averaged[-1]["stem.1.running_mean"], start["stem.1.running_mean"])
    net = dropping()
    net.load_state_dict(averaged[-1])
    seen = [net.eval().body[0](net.stem(batch["image"])).detach() for batch in loader()]
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(averaged[-1]["body.1.running_mean"], mean, rtol=1e-4, atol=1e-5)


def test_a_second_run_of_the_engine_counts_anew():
    strategy = bound(build("swa(start=0.5)"))
    engine, last = trainer(strategy, dropping(), 2), {}
    EpochSeed(0).attach(engine)
    engine.run()
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: last.update(copy.deepcopy(e.network.state_dict())))
    engine.run()
    assert int(strategy.count) == 1
    for name, parameter in engine.network.named_parameters():
        assert torch.equal(parameter, last[name])  # the mean of one


@pytest.mark.parametrize("spec", ["swa(start=1)", "swa(start=-0.1)", "swa(batches=0)"])
def test_settings_out_of_range_are_refused(spec):
    with pytest.raises(UserError, match=r"swa: start in \[0, 1\), batches 1 or more"):
        build(spec)


def test_a_second_average_and_norms_of_domains_are_refused():
    with pytest.raises(UserError, match="only one strategy of a chain can average the weights, got EMA and SWA"):
        build("ema + swa")
    with pytest.raises(UserError, match="swa cannot measure norm domain anew"):
        build("swa").prepare(convert_norm(toy(), "domain", domains=["a", "b"]))


def test_networks_without_batch_norm_are_averaged():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 2))
    plain, _ = epochs("finetune", 3, copy.deepcopy(net))
    averaged, _ = epochs("swa(start=0)", 3, copy.deepcopy(net))
    for key, value in averaged[-1].items():
        mean = torch.stack([state[key].double() for state in plain]).mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def _one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    strategy, net = bound(build("swa(start=0)")), toy()
    cases = [{**case, "image": case["image"] + rank} for case in loader().dataset][rank::2]
    prepare = strategy.prepare
    strategy.prepare = lambda n: nn.parallel.DistributedDataParallel(prepare(n))
    trainer(strategy, net, 2, train_data_loader=DataLoader(Dataset(cases), batch_size=4)).run()
    torch.save(net.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_on_weights_and_statistics(tmp_path):
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], msg=key)
