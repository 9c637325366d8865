"""A custom mask: brackets must balance. Everything that plays, samples or completes under it obeys it.

python examples/own_mask.py
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents import PretrainConfig, Reinforce, pretrain
from seqgan_env import SequenceEnv, SequenceVectorEnv
from seqgan_env.game import SequenceGame
from seqgan_env.games import make_game

BRACKETS = "()[]{}"  # token 2i opens, token 2i + 1 closes it
LENGTH = 12


def open_brackets(tokens: npt.NDArray[np.int64]) -> list[int] | None:
    """The brackets still open after a prefix, the innermost last; None if one was closed that was not open."""
    stack: list[int] = []
    for token in tokens.tolist():
        if token % 2 == 0:
            stack.append(token)
        elif not stack or stack.pop() != token - 1:
            return None
    return stack


def mask(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Allow opening while there is room to close everything again, and closing the innermost open bracket."""
    stack = open_brackets(prefix) or []
    allowed = np.zeros(len(BRACKETS), dtype=np.bool_)
    allowed[::2] = len(prefix) + len(stack) + 2 <= LENGTH
    if stack:
        allowed[stack[-1] + 1] = True
    return allowed


def is_balanced(tokens: Tensor) -> bool:
    """Whether a whole sequence `(LENGTH,)` closes all brackets in order."""
    return open_brackets(tokens.numpy()) == []


def random_episode(env: SequenceEnv, rng: np.random.Generator) -> Tensor:
    """Play the environment with random tokens among its `action_masks`; any other token would be an error."""
    env.reset(seed=int(rng.integers(2**31)))
    terminated = False
    while not terminated:
        observation, _, terminated, _, _ = env.step(rng.choice(np.flatnonzero(env.action_masks())))
    assert isinstance(observation, dict)
    return torch.from_numpy(observation["tokens"])


def depth(tokens: Tensor, lengths: Tensor) -> Tensor:
    """A reward: the deepest nesting of each sequence, divided by the deepest possible, `(n,)`."""
    steps = torch.where(tokens % 2 == 0, 1, -1)
    return steps.cumsum(dim=1).amax(dim=1).float() / (LENGTH / 2)


class DepthReward:
    """`depth` as a reward model."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Rewards `(n,)`."""
        return depth(tokens, lengths)


def new_game(n_real: int = 1000, seed: int = 0) -> SequenceGame:
    """A game with the mask and a reward for depth; its real sequences are random ones under the mask."""
    bare = make_game(len(BRACKETS), LENGTH, torch.zeros(1, LENGTH, dtype=torch.int64), reward_model="constant", mask=mask)
    env, rng = SequenceEnv(bare), np.random.default_rng(seed)
    real = torch.stack([random_episode(env, rng) for _ in range(n_real)])
    return make_game(len(BRACKETS), LENGTH, real, reward_model=DepthReward(), reward="rollout", n_rollouts=4, mask=mask)


def main(epochs: int = 3, updates: int = 30, n: int = 500, seed: int = 0) -> dict[str, float]:
    """The shares of balanced sequences, and the agent's depth before and after training for depth."""
    game = new_game(seed=seed)
    env = SequenceVectorEnv(game, 64, autoreset_mode="SameStep")
    agent = Reinforce("GeneratorPolicy", env, learning_rate=0.02, seed=seed)
    pretrain(agent.generator, game.real_sequences, PretrainConfig(epochs=epochs), torch.Generator().manual_seed(seed))
    free, _ = agent.generator.sample(n, LENGTH, torch.Generator().manual_seed(seed))
    before, lengths = agent.sample(n)
    agent.begin(updates)
    for _ in range(updates):
        agent.update()  # completions and tokens of any policy would obey the mask, too
    after, _ = agent.sample(n)
    completed = game.search.complete(after, lengths, torch.arange(n), range(LENGTH - 1)).tokens.flatten(0, 2)
    written = {"real": game.real_sequences, "without the mask": free, "with the mask": after, "completions": completed}
    shares = {f"balanced, {name}": float(np.mean([is_balanced(row) for row in rows])) for name, rows in written.items()}
    depths = {"before": depth(before, lengths), "after": depth(after, lengths)}
    return shares | {f"depth, {name}": float(values.mean()) for name, values in depths.items()}


if __name__ == "__main__":
    for name, share in main().items():
        print(f"{name}: {share:.1%}")
