"""CUDA graphs, as far as a CPU can test them: recorded code depends only on tensors and never waits for the host.

A recording is emulated by the operators that `make_fx` writes down, which are replayed without any Python of the function.
On a GPU the last tests compare the graphs themselves with plain calls.
"""

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import sample_sequences, write_sequences
from seqgan_env.rewards.discriminator import DiscriminatorReward, loss_and_sums
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig
from seqgan_env.support import cuda_graphs
from seqgan_env.support.cuda_graphs import Recordable, RepeatedStep, replayed, without_graphs
from seqgan_env.support.precision import product_dtype, products_in
from tests.recordings import FIT_SETTINGS, FIT_SIZES, Emulated, NothingFromTheHost, without_values
from tests.small import rows_together, seeded, small_transformer

pytestmark = pytest.mark.usefixtures("with_bfloat16")

V, T = 11, 6


class Affine(Recordable):
    """A product with a weight."""

    recordable = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def call(self, x: Tensor) -> tuple[Tensor]:
        return (x * self.weight.detach(),)


def lstm(seed: int = 0, device: str = "cpu") -> TokenLSTM:
    return TokenLSTM(V, 4, 5, n_layers=2, initial_std=1.0, generator=seeded(seed), device=device)


def network(device: str = "cpu", **config: Any) -> TextCNN:
    return TextCNN(V, T, TextCNNConfig(**FIT_SIZES | config), device=device)


def sequences(n: int, seed: int = 1, device: str = "cpu") -> Tensor:
    return torch.randint(V, (n, T), generator=seeded(seed)).to(device)


# What `replayed` does


def test_the_first_call_is_plain_the_second_records_and_all_agree(emulated: type[Emulated]) -> None:
    owner, calls = Affine(), []

    def function(x: Tensor) -> tuple[Tensor]:
        calls.append(1)
        return owner.call(x)

    results = [replayed(owner, "double", function, torch.tensor([float(k)]))[0].item() for k in range(5)]
    assert results == [0, 2, 4, 6, 8]
    assert (len(calls), emulated.made) == (2, 1)


def test_a_recording_repeats_old_python_values(emulated: type[Emulated]) -> None:
    """The negative control of every comparison below: a Python value that changes makes a replay differ."""
    owner, factors = Affine(), iter([1.0, 10.0, 100.0])
    results = [replayed(owner, "", lambda x: (x * next(factors),), torch.ones(1))[0].item() for _ in range(4)]
    assert results == [1, 10, 10, 10]


def test_a_replay_reads_parameters_changed_in_place(emulated: type[Emulated]) -> None:
    owner = Affine()
    for factor in (2.0, 3.0, 4.0, 5.0):
        with torch.no_grad():
            owner.weight.fill_(factor)
        assert replayed(owner, "", owner.call, torch.ones(1))[0].item() == factor
    assert emulated.made == 1


def different(owner: Affine, how: str) -> tuple[Any, Tensor, Any]:
    """Key, input and context of a call that differs from `("", ones(2))` in one thing."""
    if how == "moved":
        owner.weight = nn.Parameter(torch.tensor([7.0]))
    if how == "training":
        owner.train(not owner.training)
    contexts = {"precision": products_in("high"), "gradients": torch.no_grad(), "inference": torch.inference_mode()}
    key = "other" if how == "key" else ""
    x = {"shape": torch.ones(3), "type": torch.ones(2, dtype=torch.float64)}.get(how, torch.ones(2))
    return key, x, contexts.get(how, nullcontext())


@pytest.mark.parametrize("how", ["moved", "training", "key", "shape", "type", "precision", "gradients", "inference"])
def test_a_different_call_gets_its_own_recording(emulated: type[Emulated], how: str) -> None:
    owner = Affine()
    for _ in range(3):
        replayed(owner, "", owner.call, torch.ones(2))
    assert emulated.made == 1
    key, x, context = different(owner, how)
    with context:
        for _ in range(3):
            assert replayed(owner, key, owner.call, x)[0].tolist() == (x * owner.weight).tolist()
    assert emulated.made == 2


def test_replays_leave_earlier_results_alone(emulated: type[Emulated]) -> None:
    owner = Affine()
    own = [replayed(owner, "own", owner.call, torch.tensor([float(k)]))[0] for k in range(4)]
    assert [x.item() for x in own] == [0, 2, 4, 6]


@pytest.mark.parametrize("why", ["does not say so", "says no", "hook", "hook of gradients", "no module", "without_graphs"])
def test_calls_that_may_not_be_recorded_are_plain(emulated: type[Emulated], why: str) -> None:
    owner: Any = Affine()
    call = owner.call
    if why == "does not say so":
        owner = nn.Linear(1, 1)
    elif why == "says no":
        owner.recordable = False
    elif why == "hook":
        owner.register_forward_hook(lambda *_: None)
    elif why == "hook of gradients":
        owner.weight.register_hook(lambda gradient: gradient)
    elif why == "no module":
        owner = object()
    with without_graphs() if why == "without_graphs" else nullcontext():
        for _ in range(3):
            assert replayed(owner, "", call, torch.ones(1))[0].item() == 2
    assert emulated.made == 0


def test_a_failed_recording_warns_and_makes_all_calls_plain(emulated: type[Emulated]) -> None:
    owner, other = Affine(), Affine()

    def waits(x: Tensor) -> tuple[Tensor]:
        return (x * 2 if x.sum().item() > 0 else x,)

    for _ in range(2):
        replayed(other, "", other.call, torch.ones(1))
    assert emulated.made == 1
    assert replayed(owner, "", waits, torch.ones(1))[0].item() == 2
    with pytest.warns(UserWarning, match=r"Affine continues without CUDA graphs.*recording one failed: .*--no-cuda-graphs"):
        assert replayed(owner, "", waits, torch.ones(1))[0].item() == 2
    for sign in (1, -1):
        assert replayed(owner, "", waits, sign * torch.ones(1))[0].item() == (2 if sign > 0 else -1)
    for _ in range(3):
        assert replayed(other, "", other.call, torch.ones(1))[0].item() == 2
    assert emulated.made == 2  # the one that failed was the last
    gc.collect()
    assert not emulated.living


def test_single_calls_take_no_place_and_the_first_recordings_stay(
    emulated: type[Emulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST_RECORDINGS", 3)
    owner = Affine()
    for n in (*range(1, 10), 6):  # the second 6 comes after three others, and is as good as the first
        replayed(owner, "", owner.call, torch.ones(n))
    assert emulated.made == 0
    replayed(owner, "", owner.call, torch.ones(8))  # the latest three are 8, 9 and 6
    assert emulated.made == 1
    for n in (1, 2, 3, 4, 1, 4):
        for _ in range(2):
            assert replayed(owner, "", owner.call, torch.ones(n))[0].tolist() == [2] * n
    assert emulated.made == 3


def test_recordings_are_freed_with_their_owner(emulated: type[Emulated]) -> None:
    owner = Affine()
    for _ in range(2):
        replayed(owner, "", owner.call, torch.ones(1))
    twin = copy.deepcopy(owner)  # which begins with none
    made = []
    for _ in range(3):
        replayed(twin, "", twin.call, torch.ones(1))
        made.append(emulated.made)
    assert made == [1, 2, 2]
    del owner
    gc.collect()
    assert len(emulated.living) == 1
    del twin
    gc.collect()
    assert not emulated.living


@pytest.mark.parametrize("module", [lstm(), network()])
def test_subclasses_are_not_recordable(module: Any) -> None:
    assert module.recordable
    own = type("Own", (type(module),), {})  # it may do anything in its methods
    module = copy.deepcopy(module)
    module.__class__ = own
    assert not module.recordable


def test_an_lstm_that_has_another_output_is_not_recorded() -> None:
    policy = lstm()
    policy.output = nn.Sequential(policy.output)
    assert not policy.recordable


# What a `RepeatedStep` does


class Counter(Recordable):
    """A step adds the weight to a sum, which stays where it is."""

    recordable = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.sum = torch.zeros(1)
        self.calls = 0

    def step(self) -> tuple[Tensor]:
        self.calls += 1
        self.sum += self.weight.detach()
        return (self.sum * 10,)

    def repeated(self, key: str = "") -> RepeatedStep:
        return RepeatedStep(self, key, self.step, state=[self.sum])


def test_a_step_changes_tensors_in_place_each_time(emulated: type[Emulated]) -> None:
    owner = Counter()
    step = owner.repeated()
    assert [step()[0].item() for _ in range(5)] == [20, 40, 60, 80, 100]
    assert owner.sum.item() == 10
    assert (owner.calls, emulated.made) == (2, 1)  # called once, and once to record
    step = owner.repeated()  # of the next run of the loop
    assert [step()[0].item() for _ in range(2)] == [120, 140]
    assert (owner.calls, emulated.made) == (2, 1)


def test_a_recorded_step_repeats_old_python_values(emulated: type[Emulated]) -> None:
    """The negative control of comparisons of recorded steps: a replay leaves out what a step does in Python."""
    owner = Counter()

    def step() -> tuple[Tensor]:
        owner.calls += 1
        owner.sum += owner.calls
        return (owner.sum,)

    repeated = RepeatedStep(owner, "", step, state=[owner.sum])
    assert [repeated()[0].item() for _ in range(4)] == [1, 3, 5, 7]  # plain calls would end in 6 and 10
    assert owner.calls == 2


@pytest.mark.parametrize("how", ["moved", "state moved", "key", "precision"])
def test_a_different_next_run_gets_its_own_recording(emulated: type[Emulated], how: str) -> None:
    owner = Counter()
    step = owner.repeated()
    for _ in range(3):
        step()
    assert emulated.made == 1
    if how == "moved":
        owner.weight = nn.Parameter(torch.tensor([3.0]))
    elif how == "state moved":
        owner.sum = owner.sum.clone()
    with products_in("high") if how == "precision" else nullcontext():
        step = owner.repeated("other" if how == "key" else "")
        results = [step()[0].item() for _ in range(3)]
    more = 30 if how == "moved" else 20
    assert results == [60 + more, 60 + 2 * more, 60 + 3 * more]
    assert emulated.made == 2


def test_a_recording_of_old_tensors_makes_room_for_the_next(emulated: type[Emulated], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of a loop may have tensors of its own."""
    monkeypatch.setattr(cuda_graphs, "MOST_RECORDINGS", 3)
    owner, sums = Counter(), []
    for run in range(1, 6):
        sums.append(owner.sum)  # its memory is not given to the next one
        owner.sum = torch.zeros(1)
        step = owner.repeated()
        assert [step()[0].item() for _ in range(3)] == [20, 40, 60]
        assert emulated.made == run
    gc.collect()
    assert len(emulated.living) == 1


@pytest.mark.parametrize("changed", ["lr", "weight_decay", "betas"])
def test_the_next_run_reads_changed_settings_of_an_optimiser(emulated: type[Emulated], changed: str) -> None:
    """A step size also by the next step, because it is a tensor; other settings are part of a recording."""

    def trained(plain: bool) -> Tensor:
        owner = Counter()
        optimizer = torch.optim.AdamW(owner.parameters(), lr=0.1, fused=True)
        parameters = []

        def step() -> tuple[Tensor, ...]:
            owner.weight.grad = owner.weight.detach() ** 2
            optimizer.step()
            return ()

        for _ in range(2):
            repeated = step if plain else RepeatedStep(owner, "", step, optimizer=optimizer)
            for _ in range(4):
                repeated()
                parameters.append(owner.weight.detach().clone())
            (group,) = optimizer.param_groups
            if changed == "lr":
                group["lr"] *= 0.5
            else:
                group |= {"weight_decay": {"weight_decay": 0.5}, "betas": {"betas": (0.5, 0.9)}}[changed]
        return torch.cat(parameters)

    recorded = trained(plain=False)
    assert emulated.made == (1 if changed == "lr" else 2)
    torch.testing.assert_close(recorded, trained(plain=True))


def test_the_first_step_of_an_optimiser_is_never_recorded(emulated: type[Emulated]) -> None:
    """Even if all tensors have the addresses of an earlier run: this step sets the optimiser's state to zero."""
    owner, rate = Counter(), torch.tensor(0.1)

    def run(plain: bool) -> list[float]:
        optimizer = torch.optim.Adam(owner.parameters(), lr=rate, fused=True)
        with torch.no_grad():
            owner.weight.fill_(2)

        def step() -> tuple[Tensor]:
            owner.weight.grad = owner.weight.detach() ** 3
            optimizer.step()
            return (owner.weight.detach(),)

        repeated = step if plain else RepeatedStep(owner, "", step, optimizer=optimizer)
        return [repeated()[0].item() for _ in range(5)]

    expected = run(plain=True)
    for _ in range(3):
        assert run(plain=False) == pytest.approx(expected)
    assert emulated.made >= 1  # fewer than runs where an optimiser's state gets the memory of the last one's


def test_freezing_a_parameter_needs_a_new_recording(emulated: type[Emulated]) -> None:
    owner = lstm()
    real, config = sequences(16), PretrainConfig(epochs=6, batch_size=8)
    training, start = LikelihoodTraining(owner, real, config, seeded()), owner.embedding.weight.detach().clone()
    for epoch in range(6):
        if epoch in (2, 4):
            owner.embedding.weight.requires_grad_(epoch == 4)
        before = owner.embedding.weight.detach().clone()
        training.train_epoch()
        assert torch.equal(owner.embedding.weight, before) == (epoch in (2, 3))
    assert emulated.made == 3
    assert not torch.equal(start, before)


@pytest.mark.parametrize("why", ["says no", "hook", "without_graphs", "no setting for it"])
def test_steps_that_may_not_be_recorded_are_plain(emulated: type[Emulated], why: str) -> None:
    owner: Any = Counter()
    optimizer = torch.optim.SGD(owner.parameters(), lr=0.0) if why == "no setting for it" else None
    if why == "says no":
        owner.recordable = False
    elif why == "hook":
        owner.register_forward_hook(lambda *_: None)
    with without_graphs() if why == "without_graphs" else nullcontext():
        step = RepeatedStep(owner, "", owner.step, state=[owner.sum], optimizer=optimizer)
        assert [step()[0].item() for _ in range(4)] == [20, 40, 60, 80]
    assert (owner.calls, emulated.made) == (4, 0)
    if optimizer is not None:
        assert optimizer.param_groups[0]["lr"] == 0.0
        assert "capturable" not in optimizer.param_groups[0]


def test_a_loop_continues_if_recording_a_step_fails(emulated: type[Emulated]) -> None:
    owner = Counter()

    def waits() -> tuple[Tensor]:
        if owner.sum.sum().item() >= 0:
            owner.sum += 1
        return (owner.sum,)

    step = RepeatedStep(owner, "", waits, state=[owner.sum])
    assert step()[0].item() == 1
    with pytest.warns(UserWarning, match="Counter continues without CUDA graphs"):
        assert step()[0].item() == 2
    assert [step()[0].item() for _ in range(2)] == [3, 4]
    assert emulated.made == 1


# What is recorded, against plain calls


def sampled(policy: TokenLSTM, times: int, **options: Any) -> list[Tensor]:
    rng = torch.Generator(policy.device).manual_seed(3)
    return [sample_sequences(policy, 9, T, V, rng, **options)[0] for _ in range(times)]


def in_chunks(policy: TokenLSTM, times: int) -> list[Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        rows_together(patch, 4, V)
        return sampled(policy, times)


def completed(policy: TokenLSTM, times: int) -> list[Tensor]:
    search = MonteCarloSearch(policy, lambda tokens, lengths: tokens.float().mean(dim=1), 3, V)
    lengths = torch.full((9,), T, device=policy.device)
    keys = torch.arange(9, device=policy.device)
    return [search.action_values(sequences(9, k).to(policy.device), lengths, keys + 100 * k) for k in range(times)]


def fitted(module: TextCNN, times: int) -> list[Tensor]:
    found, model = [], DiscriminatorReward(module)
    for k in range(times):
        metrics = model.fit(sequences(12, k).to(module.device), sequences(9, k + 50).to(module.device) % 4)
        found += [torch.tensor(metrics["loss"]), *(p.detach().clone() for p in module.parameters())]
    return found


SAMPLERS: dict[str, Callable[[TokenLSTM, int], list[Tensor]]] = {
    "sample": sampled,
    "after a prefix": lambda policy, times: sampled(policy, times, prefix=(3, 1)),
    "colder": lambda policy, times: sampled(policy, times, inverse_temperature=1.7),
    "in chunks": in_chunks,
    "complete": completed,
}


@pytest.mark.parametrize("what", SAMPLERS)
def test_a_policy_writes_the_same_with_recordings(emulated: type[Emulated], what: str) -> None:
    policy = lstm()
    recorded = SAMPLERS[what](policy, 4)
    assert emulated.made == 1
    with without_graphs():
        plain = SAMPLERS[what](policy, 4)
    assert all(torch.equal(a, b) for a, b in zip(recorded, plain, strict=True))
    assert not torch.equal(plain[2], plain[3])


def test_a_recorded_policy_that_learns_writes_what_it_has_learned(emulated: type[Emulated]) -> None:
    policy, other = lstm(0), lstm(1)
    sampled(policy, 3)
    policy.load_state_dict(other.state_dict())
    assert torch.equal(sampled(policy, 1)[0], sampled(other, 1)[0])
    assert emulated.made == 1


@pytest.mark.parametrize("what", ["end token", "mask", "transformer"])
def test_calls_are_plain_if_rows_take_different_steps(emulated: type[Emulated], what: str) -> None:
    policy: Any = lstm()
    options: dict[str, Any] = {}
    if what == "end token":
        options = {"end_token": 0}
    elif what == "mask":
        options = {"mask": lambda prefix: torch.ones(V, dtype=torch.bool).numpy()}
    else:
        policy = small_transformer(vocab_size=V, max_length=T)
    for _ in range(3):
        sample_sequences(policy, 9, T, V, seeded(), **options)
        MonteCarloSearch(policy, lambda tokens, lengths: lengths.float(), 2, V, **options).complete(
            sequences(3), torch.full((3,), T), torch.arange(3), range(T - 1)
        )
    assert emulated.made == 0


# Recorded code never waits for the host: tensors without values raise an error if one is read


@pytest.mark.parametrize("prefix", [(), (3, 1)])
def test_sampling_never_waits_for_the_host(prefix: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rows_together(monkeypatch, 4, V)
    policy, uniforms = without_values(lstm()), torch.empty(9, T - len(prefix), device="meta")
    with NothingFromTheHost(), torch.no_grad():
        tokens, _ = write_sequences(policy, uniforms, prefix, V, None, 1.0, None)
    assert tokens.shape == (9, T)


def test_completions_never_wait_for_the_host() -> None:
    search = MonteCarloSearch(without_values(lstm()), lambda tokens, lengths: lengths.float(), 3, V)
    whole = torch.empty(9, T, dtype=torch.int64, device="meta")
    of_each = torch.empty(9, dtype=torch.int64, device="meta")
    with NothingFromTheHost():
        completions = search.complete(whole, of_each, of_each, range(T - 1))
        assert search.scores(completions).shape == (T - 1, 9, 3)


@pytest.mark.parametrize("settings", FIT_SETTINGS)
def test_gradients_of_a_discriminator_never_wait_for_the_host(settings: str) -> None:
    module = without_values(network(**FIT_SETTINGS[settings])).train()
    tokens, is_real = torch.empty(8, T, dtype=torch.int64, device="meta"), torch.empty(8, dtype=torch.bool, device="meta")
    kept = torch.empty(8, module.n_features, dtype=torch.bool, device="meta") if module.config.dropout else None
    with NothingFromTheHost(), products_in(module.config.precision):
        dtype = product_dtype(module.output.weight)
        assert (dtype == torch.bfloat16) == (settings == "bfloat16")
        loss, _ = loss_and_sums(module, tokens, is_real, kept, dtype)
        gradients = torch.autograd.grad(loss, list(module.parameters()))
    assert [g.shape for g in gradients] == [p.shape for p in module.parameters()]


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.any() and x,
        lambda x: x[x > 0],
        lambda x: x + torch.tensor([1.0]).to(x.device),
        lambda x: torch.ones(2, device=x.device).copy_(torch.ones(2)),
        lambda x: x.cpu(),
    ],
)
def test_waiting_for_the_host_is_detected(waits: Callable[[Tensor], Any]) -> None:
    """The negative control of the three tests before."""
    with NothingFromTheHost(), pytest.raises(RuntimeError):
        waits(torch.empty(2, device="meta"))


# The graphs themselves


@pytest.mark.gpu
@pytest.mark.parametrize("what", SAMPLERS)
def test_a_policy_writes_the_same_with_graphs(what: str, counted: type[Any]) -> None:
    policy = lstm(device="cuda")
    with_graphs = SAMPLERS[what](policy, 4)
    assert counted.made
    with without_graphs():
        plain = SAMPLERS[what](policy, 4)
    differing = torch.stack([(a != b).float().mean() for a, b in zip(with_graphs, plain, strict=True)])
    assert differing.max() < 0.02, what  # a draw at the edge of two tokens may fall on either side


@pytest.mark.gpu
def test_recording_works_again_after_all_graphs_are_freed(counted: type[Any]) -> None:
    for seed in range(3):
        policy, module = lstm(seed, device="cuda"), network("cuda")
        made = [counted.made]
        sampled(policy, 3)
        made.append(counted.made)
        fitted(module, 2)
        made.append(counted.made)
        completed(policy, 3)
        made.append(counted.made)
        assert made == sorted(set(made))  # each has recorded something
        del policy, module
        gc.collect()
    assert torch.rand(1, device="cuda").item() < 1  # torch's own numbers still come
    torch.cuda.empty_cache()


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_a_process_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "failed", False)
    owner = Affine().cuda()
    x = torch.ones(1, device="cuda")

    def waits(x: Tensor) -> tuple[Tensor]:
        return (x * 2 if x.sum().item() > 0 else x,)

    replayed(owner, "", waits, x)
    with pytest.warns(UserWarning, match="Affine continues without CUDA graphs"):
        assert replayed(owner, "", waits, x)[0].item() == 2
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert fitted(network("cuda"), 1)[0].isfinite()
    assert (sampled(lstm(device="cuda"), 1)[0] < V).all()
