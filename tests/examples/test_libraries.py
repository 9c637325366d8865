"""The examples for other libraries run, and learn.

The lesson is that of `test_other_algorithms`: to follow each token by the next number of four. An untrained policy earns
1 / 4, and a policy that does not look at the prefix at most that. An algorithm that does not move stays there: the negative
control.
"""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from agents.vec_env import info_of_row
from benchmarks import libraries
from benchmarks.libraries import LESSON, rising
from seqgan_env import FunctionReward, SequenceVectorEnv, TextCNNConfig, oracle_game
from tests.programs import run_program

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SMALL_CNN = TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1)
BATCH = 128  # episodes of the lesson in an update: means of 384 pairs, of which chance sets right 0.25 ± 0.02
ADVERSARIAL: Any = {"vocab_size": 6, "sequence_length": 5, "num_envs": 16, "updates": 3, "retrain_every": 16}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example by name, as if its folder were the script's."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def learn(module: ModuleType, **config: Any) -> Any:
    """Play `rising` as the reward, which no one retrains."""
    return module.main(module.Config(**LESSON | {"num_envs": BATCH}, **config), reward_model=FunctionReward(rising))


class CountFits:
    """A reward model that learns by counting how often it is asked to."""

    def __init__(self) -> None:
        self.fits = 0

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 0.5)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        self.fits += 1
        assert torch.is_grad_enabled()
        return {}


def played_adversarially(module: ModuleType) -> int:
    """How often three updates on 48 episodes retrain a reward model; then the same with a discriminator."""
    counter = CountFits()
    module.main(module.Config(**ADVERSARIAL), reward_model=counter)
    before, after, *_ = module.main(module.Config(**ADVERSARIAL), discriminator=SMALL_CNN, n_real=64)
    assert 0 < before[0] < 1
    assert 0 < after[0] < 1
    assert np.isfinite([before[1], after[1]]).all()
    return counter.fits


class TestSingleFile:
    @pytest.mark.rounding
    def test_it_learns(self, example: Any) -> None:
        (before, _), (after, _) = learn(example("cleanrl_ppo"), updates=12, learning_rate=0.01)
        assert before < 0.4
        assert after > 0.85

    @pytest.mark.rounding
    def test_without_a_step_size_it_learns_nothing(self, example: Any) -> None:
        (before, _), (after, _) = learn(example("cleanrl_ppo"), updates=12, learning_rate=0.0)
        assert max(before, after) < 0.4

    def test_it_plays_the_adversarial_game(self, example: Any) -> None:
        assert played_adversarially(example("cleanrl_ppo")) == 3

    def test_the_shaped_reward_sums_to_the_same(self, example: Any) -> None:
        """Before any update, the same policy writes the same sequences under both contracts."""
        terminal, _ = learn(example("cleanrl_ppo"), updates=1)
        shaped, _ = learn(example("cleanrl_ppo"), updates=1, reward="shaped")
        assert shaped == pytest.approx(terminal, abs=1e-6)

    def test_generalized_advantages_by_hand(self, example: Any) -> None:
        """Two steps, gamma 1/2 and lambda 1/2: d_1 = 4 - 2 = 2, d_0 = 1 + 2 / 2 - 3 = -1, and -1 + 2 / 4."""
        rewards, values = torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [2.0]])
        assert example("cleanrl_ppo").advantages_of(rewards, values, 0.5, 0.5).tolist() == [[-0.5], [2.0]]


@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase is deprecated:DeprecationWarning")
class TestTorchRL:  # which warns of its own classes while it is imported
    @pytest.fixture(autouse=True)
    def torchrl_or_skip(self) -> None:
        pytest.importorskip("torchrl", reason="torchrl is not installed: pip install -e '.[torchrl]'")

    @pytest.mark.slow
    @pytest.mark.rounding
    def test_it_learns(self, example: Any) -> None:
        before, after = learn(example("torchrl_ppo"), updates=15, learning_rate=0.01)
        assert before.reward < 0.4
        assert after.reward > 0.85

    @pytest.mark.rounding
    def test_without_a_step_size_it_learns_nothing(self, example: Any) -> None:
        before, after = learn(example("torchrl_ppo"), updates=2, learning_rate=0.0)
        assert after == before
        assert after.reward < 0.4

    def test_it_plays_the_adversarial_game(self, example: Any) -> None:
        """`check_env_specs` plays a short rollout of its own, which ends no episode here beyond those that are counted."""
        assert played_adversarially(example("torchrl_ppo")) >= 3

    @pytest.mark.parametrize("autoreset_mode", ["SameStep", "Disabled"])
    @pytest.mark.parametrize("layout", ["dict", "flat"])
    def test_specs(self, autoreset_mode: str, layout: Any) -> None:
        from torchrl.envs import GymWrapper, check_env_specs

        venv = SequenceVectorEnv(oracle_game(3, 4, n_real=8), 2, autoreset_mode=autoreset_mode, layout=layout)
        check_env_specs(GymWrapper(venv, categorical_action_encoding=True), seed=0)

    def test_it_refuses_gymnasium_s_default_autoreset(self) -> None:
        from torchrl.envs import GymWrapper

        with pytest.raises(RuntimeError, match="autoreset_mode"):
            GymWrapper(SequenceVectorEnv(oracle_game(3, 4, n_real=8), 2), categorical_action_encoding=True)


class TestTianshou:
    @pytest.fixture(autouse=True)
    def tianshou_or_skip(self) -> None:
        pytest.importorskip("tianshou", reason="tianshou is not installed: pip install -e '.[tianshou]'")

    @pytest.mark.slow
    @pytest.mark.rounding
    def test_it_learns(self, example: Any) -> None:
        before, after, statistics = learn(example("tianshou_ppo"), updates=15, learning_rate=0.01)
        assert before.reward < 0.4
        assert after.reward > 0.85
        assert (statistics.train_episode, statistics.train_step) == (15 * BATCH, 15 * BATCH * 4)
        assert statistics.update_step == 15

    def test_it_plays_the_adversarial_game(self, example: Any) -> None:
        assert played_adversarially(example("tianshou_ppo")) == 3


class TestSkrl:
    @pytest.fixture(autouse=True)
    def skrl_or_skip(self) -> None:
        pytest.importorskip("skrl", reason="skrl is not installed: pip install -e '.[skrl]'")

    @pytest.mark.rounding
    def test_it_learns(self, example: Any) -> None:
        before, after = learn(example("skrl_ppo"), updates=25, learning_rate=0.01)
        assert before.reward < 0.4
        assert after.reward > 0.85

    def test_it_plays_the_adversarial_game(self, example: Any) -> None:
        assert played_adversarially(example("skrl_ppo")) == 3


class TestRLlib:
    @pytest.fixture(autouse=True)
    def ray_or_skip(self) -> None:
        reason = "RLlib is not installed; it needs an environment of its own: see examples/rllib-requirements.txt"
        pytest.importorskip("ray.rllib", reason=reason)

    @pytest.mark.slow
    @pytest.mark.rounding
    @pytest.mark.filterwarnings("ignore")  # of Ray and what it starts, by the dozen
    def test_it_learns(self, example: Any) -> None:
        before, after, steps = learn(example("rllib_ppo"), updates=15, learning_rate=0.01)
        assert before.reward < 0.4
        assert after.reward > 0.85
        assert steps >= 15 * BATCH * 4

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_it_plays_the_adversarial_game(self, example: Any) -> None:
        assert played_adversarially(example("rllib_ppo")) >= 3  # its runners may collect some episodes more


class TestZoo:
    YAML = EXAMPLES / "rl_zoo3" / "ppo.yml"

    def test_the_page_the_yaml_and_the_benchmark_give_one_command(self) -> None:
        page = (EXAMPLES.parent / "docs" / "libraries.md").read_text(encoding="utf-8")
        given = [re.sub(r"\n#", "\n", self.YAML.read_text(encoding="utf-8")), page]
        commands = [re.findall(r"python (-m rl_zoo3.train(?:.*\\\n)*.*)", text) for text in given]
        words = [[shlex.split(command.replace("\\\n", "")) for command in found] for found in commands]
        assert words == [[shlex.split(libraries.ZOO)]] * 2

    def test_evaluation_plays_what_training_plays(self) -> None:
        """The environments' spaces and real sequences are alike."""
        yaml = pytest.importorskip("yaml", reason="PyYAML comes with rl_zoo3")
        training = yaml.safe_load(self.YAML.read_text(encoding="utf-8"))["SeqGAN/Oracle-v0"]["env_kwargs"]
        _, _, given = libraries.ZOO.partition("--eval-env-kwargs ")
        evaluating = {name: eval(value) for name, _, value in (one.partition(":") for one in shlex.split(given))}
        one, other = (gym.make("SeqGAN/Oracle-v0", **arguments).unwrapped for arguments in (training, evaluating))
        assert one.observation_space == other.observation_space
        assert one.action_space == other.action_space
        assert torch.equal(one.game.real_sequences, other.game.real_sequences)  # type: ignore[attr-defined]

    @pytest.mark.slow
    def test_the_yaml_trains_and_is_evaluated(self, tmp_path: Path) -> None:
        """A few hundred steps by the zoo's own command; 48 episodes, each of 8 discriminators learns once, two evaluations."""
        pytest.importorskip("rl_zoo3", reason="rl_zoo3 is not installed: pip install -e '.[zoo]'")
        yaml = pytest.importorskip("yaml", reason="PyYAML comes with rl_zoo3")
        settings = yaml.safe_load(self.YAML.read_text(encoding="utf-8"))
        settings["SeqGAN/Oracle-v0"]["env_kwargs"] |= {"retrain_every": 4, "n_real": 16}
        (tmp_path / "ppo.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = [*shlex.split(libraries.ZOO), "-n", "480", "--eval-freq", "240"]
        folders = ["--conf-file", str(tmp_path / "ppo.yml"), "-f", str(tmp_path / "logs"), "--seed", "0"]
        run = run_program(*command, *folders)
        assert run.returncode == 0, run.stderr
        assert re.search(r"total_timesteps +\| 480 ", run.stdout)
        assert [float(reward) for reward in re.findall(r"ep_rew_mean +\| (\S+) ", run.stdout)]
        folder = tmp_path / "logs" / "ppo" / "SeqGAN-Oracle-v0_1"
        assert (folder / "SeqGAN-Oracle-v0.zip").is_file()
        with np.load(folder / "evaluations.npz") as evaluations:
            assert evaluations["timesteps"].tolist() == [240, 480]
            assert (evaluations["ep_lengths"] == 10).all()


@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase is deprecated:DeprecationWarning")
@pytest.mark.parametrize("library", ["gymnasium", "torchrl", "skrl", "tianshou"])
def test_the_page_s_lines_run(library: str) -> None:
    """Each Python block of the page, known by the library whose names it imports first."""
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e '.[{library}]'")
    page = (EXAMPLES.parent / "docs" / "libraries.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = [next(n for n in ("torchrl", "skrl", "tianshou", "gymnasium") if n in block) for block in blocks]
    assert sorted(names) == ["gymnasium", "skrl", "tianshou", "torchrl"]
    exec(compile(blocks[names.index(library)], "libraries.md", "exec"), {})


@pytest.mark.parametrize("grad_off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("reward", ["terminal", "shaped"])
def test_retraining_works_where_a_library_turned_gradients_off(grad_off: Any, reward: Any) -> None:
    """Collectors step environments without gradients; the discriminator learns all the same, and learns the same."""

    def play(context: Any) -> tuple[list[dict[str, float]], list[Tensor]]:
        game = oracle_game(3, 4, n_real=16, reward=reward, n_rollouts=2, retrain_every=8, discriminator=SMALL_CNN)
        env, metrics = SequenceVectorEnv(game, 4, autoreset_mode="SameStep"), []
        with context:
            env.reset(seed=0)
            for step in range(3 * 4):
                *_, infos = env.step(np.arange(4) % (1 + step % 3))
                metrics += (
                    [info_of_row(infos["final_info"], 3)["retraining"]] if "retraining" in infos.get("final_info", {}) else []
                )
        return metrics, list(game.reward_model.discriminator.parameters())  # type: ignore[attr-defined]

    (metrics, parameters), (expected, as_ever) = play(grad_off()), play(torch.enable_grad())
    assert metrics == expected
    assert len(metrics) == 2
    assert all(torch.equal(one, other) for one, other in zip(parameters, as_ever, strict=True))
