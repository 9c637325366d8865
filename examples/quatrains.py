"""Chinese quatrains, one token per character, as in the SeqGAN paper (Yu et al., 2017, section 5): BLEU-2 on held-out poems.

python examples/quatrains.py --data tang_poems.txt
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from over_seeds import ADVERSARIAL, TEMPERATURES, Comparison, compare

from agents import PretrainConfig
from agents.experiment.config import EvaluationConfig, TextConfig
from seqgan_env import GeneratorConfig, TextCNNConfig
from seqgan_env.evaluation.run_evaluation import EvaluationSettings
from seqgan_env.rendering import spell_what_cannot_be_encoded

PUNCTUATION = "，。？！；、"
LENGTH = 20


@dataclass(frozen=True)
class Config:
    """Train on quatrains with several seeds; print how adversarial training changed the likelihood start."""

    data: Path
    """A file with one poem per line, with or without spaces between characters; punctuation is left out."""
    out: Path = Path("runs/quatrains")
    """The folder for run folders, table, picture and samples."""
    seeds: tuple[int, ...] = (4, 5, 6)
    """Seeds of the runs. Seed 0 was used to choose the settings."""
    n_characters: int = 1000
    """Use only poems written in this many of the most frequent characters, so that none is unknown."""
    hidden_dim: int = 64
    """Width of the generator."""
    epochs: int = 20
    """Epochs of likelihood training."""
    updates: int = 40
    """Adversarial updates."""
    n_samples: int = 1000
    """Poems per evaluation."""


def read_quatrains(path: Path, n_characters: int) -> list[str]:
    """The distinct poems of 20 characters, without punctuation, that use only the most frequent characters.

    Raises:
        ValueError: there are none.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    remove = str.maketrans("", "", PUNCTUATION + " \t\u3000")
    poems = [poem for poem in dict.fromkeys(line.translate(remove) for line in lines) if len(poem) == LENGTH]
    counts = Counter(character for poem in poems for character in poem)
    frequent = {character for character, _ in counts.most_common(n_characters)}
    chosen = [poem for poem in poems if frequent.issuperset(poem)]
    if not chosen:
        raise ValueError(
            f"{path}: of {len(lines)} lines, {len(poems)} have {LENGTH} characters, and none of these uses only the "
            f"{n_characters} most frequent ones. Expected quatrains with five characters per line of verse, one poem per line."
        )
    return chosen


def main(config: Config) -> Comparison:
    """Train and measure; write everything to `config.out`."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    data = config.out / "quatrains.txt"
    data.write_text("\n".join(read_quatrains(config.data, config.n_characters)) + "\n", encoding="utf-8")
    adversarial = dataclasses.replace(ADVERSARIAL, updates=config.updates)
    settings = TextConfig(
        data=data,
        tokenizer="characters",
        out=config.out,
        device="cpu",
        generator=GeneratorConfig(embedding_dim=config.hidden_dim, hidden_dim=config.hidden_dim, dropout=0.3),
        pretrain=PretrainConfig(epochs=config.epochs, learning_rate=5e-3, final_learning_rate=5e-4),
        discriminator=TextCNNConfig(widths=(1, 2, 3), n_filters=(64,) * 3, l2=0.0, learning_rate=1e-3, epochs=1),
        adversarial=adversarial,
        evaluation=EvaluationConfig(n_samples=min(500, config.n_samples), every_epochs=5, every_updates=20),
    )
    evaluation = EvaluationSettings(n=config.n_samples, n_neighbours=200, inverse_temperatures=TEMPERATURES)
    comparison = compare(settings, {"adversarial": adversarial}, config.seeds, evaluation)
    comparison.save(config.out, comparison.table())
    return comparison


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
