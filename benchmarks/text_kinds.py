"""Can the preset `text` do harm? `python -m benchmarks.text_kinds` runs it on five kinds of sequences, and prints tables.

The sequences are generated here, always the same; if SEQGAN_DATA is set to a folder with `tang_poems.txt`, poems are a sixth
kind. Each kind is learned by likelihood as long as in the preset, and also briefly, which gives a start that the adversarial
phase can destroy within ten updates. At every evaluation held-out NLL must be at most 0.02 nats per token above the start's,
and the mean length within 5% of the start's. Each finished run is a line of `text_kinds.jsonl`; if you call the program again,
it continues with the others.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro

from agents.experiment.config import TextConfig
from agents.experiment.presets import PRESETS
from benchmarks.finished_runs import FinishedRuns, side_by_side, spread
from benchmarks.run_folders import run_in
from seqgan_env.data.corpus import Tokenizer
from seqgan_env.evaluation.run_logs import read_log
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.saved_game import LAST, LIKELIHOOD, load_checkpoints, load_game

Kind = Literal["sentences", "dna", "smiles", "events", "chinese", "poems"]
SENTENCES = Path(__file__).parents[1] / "examples" / "sentences.txt"
POEMS = "tang_poems.txt"
N_LINES = 1500
METRICS = ("nll_test", "length", "full_length", "unique", "bleu_2")

Setting = Literal["preset", "not held"]
SETTINGS: dict[Setting, dict[str, Any]] = {"preset": {}, "not held": {"learning_rate": 1e-3, "kl_coef": 0.0}}
"""The preset's adversarial phase, and a control that takes larger steps and is not held to its start."""


@dataclass(frozen=True)
class Config:
    """Run the preset `text` on several kinds of sequences over several seeds."""

    kinds: tuple[Kind, ...] = ("sentences", "dna", "smiles", "events", "chinese")
    """The kinds of sequences; poems are read from the folder `data`."""
    settings: tuple[Setting, ...] = get_args(Setting)
    """Adversarial settings: the preset's, or the control's."""
    epochs: tuple[int, ...] = (2, 8)
    """Epochs of likelihood, one run for each number; the preset has 8."""
    seeds: int = 3
    """The number of seeds, 0, 1, ...; all share the same sequences."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder of the poems; by default the environment variable SEQGAN_DATA."""
    out: Path = Path("runs/text_kinds")
    """The folder for sequences, run folders and `text_kinds.jsonl`."""
    jobs: int = 1
    """Parallel runs, with one thread each."""
    table_only: bool = False
    """Only print the tables of the finished runs."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    kind: Kind
    setting: Setting
    epochs: int
    seed: int
    curve: list[tuple[float, ...]]
    """`METRICS` of the likelihood start, then of each adversarial evaluation."""
    judged: tuple[float, float]
    """The last discriminator's mean reward for samples of the likelihood start, and of the last generator."""
    cpu_seconds: float
    """CPU time of the whole run."""

    def worst_rise(self) -> float:
        """The largest held-out NLL of any evaluation minus the start's, nats per token."""
        return max(point[0] for point in self.curve[1:]) - self.curve[0][0]

    def worst_length(self) -> float:
        """The largest change of the mean length at any evaluation, as a share of the start's."""
        before = self.curve[0][1]
        return max(abs(point[1] / before - 1) for point in self.curve[1:])


def main(config: Config) -> None:
    """Do the unfinished runs, and print the tables."""
    file = FinishedRuns(config.out / "text_kinds.jsonl", Result)
    wanted = [
        (kind, setting, epochs, seed)
        for seed in range(config.seeds)
        for epochs in config.epochs
        for setting in config.settings
        for kind in config.kinds
    ]
    results = [result for result in file.read() if _key(result) in wanted]
    finished = {_key(result) for result in results}
    if not config.table_only:
        left = [(*key, config) for key in wanted if key not in finished]
        results += file.append(side_by_side(run, left, config.jobs))
    print(table(results))


def _key(result: Result) -> tuple[Kind, Setting, int, int]:
    return result.kind, result.setting, result.epochs, result.seed


def run(kind: Kind, setting: Setting, epochs: int, seed: int, config: Config) -> Result:
    """One run of the preset."""
    settings = settings_of(kind, setting, epochs, seed, config)
    folder = config.out / f"{kind}-{setting.replace(' ', '-')}-{epochs}-epochs-seed{seed}"
    before = time.process_time()
    of_run = run_in(folder, settings, "text")
    seconds = time.process_time() - before
    rows = read_log(of_run / "progress.csv")
    starts = [row for row in rows if row.get("pretraining/nll_test")]
    later = [row for row in rows if row.get("adversarial/nll_test")]
    curve = [_point(starts[-1], "pretraining"), *(_point(row, "adversarial") for row in later)]
    return Result(kind, setting, epochs, seed, curve, judged(of_run), seconds)


def judged(folder: Path) -> tuple[float, float]:
    """The last discriminator's mean reward for 5,000 samples of the run's likelihood start, and of its last generator."""
    game = load_game(folder)
    checkpoints = load_checkpoints(folder, game, [LIKELIHOOD, LAST])
    rewards = []
    for name in (LIKELIHOOD, LAST):
        samples = checkpoints[name].sample(5000, game.sequence_length, torch.Generator().manual_seed(0))
        rewards.append(game.reward_model.score(*samples).mean().item())
    return rewards[0], rewards[1]


def settings_of(kind: Kind, setting: Setting, epochs: int, seed: int, config: Config) -> TextConfig:
    """The preset with a row's changes."""
    preset = PRESETS["text"][0]
    assert isinstance(preset, TextConfig)
    lines, tokenizer = sequences(kind, config.data)
    config.out.mkdir(parents=True, exist_ok=True)
    file = config.out / f"{kind}.txt"
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return dataclasses.replace(
        preset,
        data=file,
        tokenizer=tokenizer,
        seed=seed,
        device="cpu",
        pretrain=dataclasses.replace(preset.pretrain, epochs=epochs),
        adversarial=dataclasses.replace(preset.adversarial, **SETTINGS[setting]),
    )


def _point(row: Mapping[str, str], phase: str) -> tuple[float, ...]:
    return tuple(float(row[f"{phase}/{metric}"]) for metric in METRICS)


def sequences(kind: Kind, data: Path) -> tuple[list[str], Tokenizer]:
    """Lines of a kind, and their tokenizer; poems are read from a folder."""
    if kind == "sentences":
        return SENTENCES.read_text(encoding="utf-8").splitlines(), "words"
    if kind == "poems":
        return (data / POEMS).read_text(encoding="utf-8").splitlines()[:N_LINES], "words"
    make, tokenizer = _MAKERS[kind]
    rng = np.random.default_rng(0)
    return [make(rng) for _ in range(N_LINES)], tokenizer


def dna(rng: np.random.Generator) -> str:
    """DNA: a promoter's motif, some bases, a start codon, codons of skewed use, a stop codon; cut off at 30 bases."""
    spacer = "".join(rng.choice(list("ACGT"), size=rng.integers(1, 5), p=(0.4, 0.1, 0.2, 0.3)))
    codons = rng.choice(_CODONS, size=rng.geometric(0.25), p=_CODON_USE)
    motif = "TATAAT" if rng.random() < 0.8 else "TATGAT"
    return (motif + spacer + "ATG" + "".join(codons) + rng.choice(["TAA", "TAG", "TGA"]))[:30]


def smiles(rng: np.random.Generator) -> str:
    """A molecule: a chain of atoms, branches and rings, with a group at its end; valences are respected."""
    parts = [_one_of(rng, _LINKS if rng.random() < 0.8 else _RINGS) for _ in range(min(4, rng.geometric(0.35)))]
    with_branches = [part.replace("*", f"({_one_of(rng, _GROUPS)})" if rng.random() < 0.4 else "") for part in parts]
    return "C" + "".join(with_branches) + _one_of(rng, _GROUPS)


def events(rng: np.random.Generator) -> str:
    """An order's log as event ids: a process with two steps in either order, a loop, choices and reminders."""
    log = [0, int(rng.integers(1, 4))]  # received, by one of three channels
    log += [4, 5] if rng.random() < 0.6 else [5, 4]  # credit and stock are checked in parallel
    while len(log) < 10 and rng.random() < 0.35:
        log += [6, int(rng.integers(7, 10))]  # queried, and answered by one of three desks
    if rng.random() < 0.2:
        return " ".join(map(str, [*log, 10, 19]))  # refused
    log += [11, int(rng.choice([12, 13, 14], p=(0.6, 0.3, 0.1)))]  # confirmed, and sent by one of three carriers
    while rng.random() < 0.4:
        log.append(15)  # a reminder
    log.append(int(rng.choice([16, 17], p=(0.8, 0.2))))  # paid or written off
    return " ".join(map(str, [*log, 18, 19] if rng.random() < 0.5 else [*log, 19]))


def chinese(rng: np.random.Generator) -> str:
    """A sentence of a small grammar: when, who, where, what is done, and perhaps a second clause."""
    clauses = [_clause(rng) for _ in range(rng.choice([1, 2], p=(0.6, 0.4)))]
    return "，".join(clauses) + ("。" if rng.random() < 0.8 else "！")


def _clause(rng: np.random.Generator) -> str:
    parts = [(_TIMES, 0.6), (_PEOPLE, 1.0), (_PLACES, 0.6), (_MANNERS, 0.3)]
    words = [_one_of(rng, words) for words, share in parts if rng.random() < share]
    verb, objects = _DEEDS[rng.integers(len(_DEEDS))]
    return "".join([*words, verb, "了" if rng.random() < 0.3 else "", _one_of(rng, objects)])


def _one_of(rng: np.random.Generator, words: str) -> str:
    choices = words.split()
    return choices[rng.integers(len(choices))]


_CODONS = ("GCT", "GAA", "AAA", "CTG", "GGT", "ACC", "CAG", "TTC", "GAT", "ATC", "CGT", "AGC")
_CODON_USE = (0.18, 0.16, 0.14, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02)
_LINKS = "C* C* C* C=C C(=O) C(=O)N CO CS N(C) C#C"
_RINGS = "c1cc*ccc1 c1ccc*nc1 C1CC*CC1 C1CC*CCC1 c1cc*sc1"
_GROUPS = "C O N F Cl Br C#N C(=O)O"
_TIMES = "今天 昨天 明天 早上 晚上 中午 春天 秋天 周末 去年"
_PEOPLE = "我 他 她 我们 老师 学生 妈妈 爸爸 朋友 孩子 医生 农民 哥哥 小王 老李"
_PLACES = "在家里 在学校 在公园 在河边 在山上 在城里 在院子里 在路上 在海边 在图书馆"
_MANNERS = "慢慢地 高兴地 一起 又 常常 悄悄地 认真地 也"
_DEEDS = (
    ("吃", "米饭 面条 苹果 鱼 水饺 西瓜"),
    ("喝", "茶 水 牛奶 热汤 咖啡"),
    ("看", "书 电影 花 月亮 报纸 大雪"),
    ("写", "信 字 诗 文章 日记"),
    ("买", "菜 衣服 票 东西 鲜花 新车"),
    ("唱", "歌 京剧 老歌"),
    ("种", "树 花 水稻 白菜"),
    ("画", "山水 小鸟 马 竹子"),
    ("听", "音乐 故事 雨声 新闻"),
    ("学", "中文 数学 游泳 历史"),
)
_MAKERS: dict[Kind, tuple[Callable[[np.random.Generator], str], Tokenizer]] = {
    "dna": (dna, "characters"),
    "smiles": (smiles, "characters"),
    "events": (events, "integers"),
    "chinese": (chinese, "characters"),
}


def table(results: Sequence[Result]) -> str:
    """A row per setting, length of likelihood training, and kind: means over seeds, ± standard deviation.

    Maxima are over evaluations and seeds. The reward is `Result.judged`.
    """
    lines = [
        "| settings | epochs | data | held-out NLL | change | largest rise | mean length / held-out | largest change "
        "| unique | BLEU-2 | reward | CPU seconds | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys(_key(result)[:3] for result in sorted(results, key=_order))
    for kind, setting, epochs in groups:
        runs = [result for result in results if _key(result)[:3] == (kind, setting, epochs)]
        columns = [[[result.curve[at][i] for result in runs] for at in (0, -1)] for i in range(len(METRICS))]
        (nll, nll_after), length, _, unique, bleu = columns
        cells = [
            f"{mean(nll):.3f} → {mean(nll_after):.3f}",
            spread([after - before for before, after in zip(nll, nll_after, strict=True)], "+"),
            f"{max(result.worst_rise() for result in runs):+.3f}",
            _both(length),
            f"{max(result.worst_length() for result in runs):.1%}",
            _both(unique),
            _both(bleu),
            _both([[result.judged[i] for result in runs] for i in (0, 1)]),
            f"{mean(result.cpu_seconds for result in runs):.0f}",
            str(len(runs)),
        ]
        lines.append(f"| {setting} | {epochs} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _order(result: Result) -> tuple[int, int]:
    return list(SETTINGS).index(result.setting), result.epochs


def _both(values: Sequence[Sequence[float]]) -> str:
    return " → ".join(spread(of_seeds) for of_seeds in values)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
