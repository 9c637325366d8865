"""A run in progress: its parts, its progress, and how to stop and resume it."""

import dataclasses
import hashlib
import json
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from tqdm.auto import tqdm

import seqgan_env
from agents.discriminator_watch import DiscriminatorWatch
from agents.experiment.checkpoint import Checkpoints
from agents.experiment.collapse import BestKeeper, CollapseAlarm
from agents.experiment.config import TrainConfig, config_from_json, config_to_json, name_of, with_absolute_paths
from agents.experiment.make_agent import make_agent
from agents.experiment.make_task import KeptData, Task, make_task
from agents.experiment.names import CHECKPOINTS, LAUNCH, Phase
from agents.experiment.run_folder import NoRunFolder, RunFolder, RunLock
from agents.experiment.threads import computing_with, threads_for
from agents.experiment.torchrun import earlier_run, is_restarted, note_of_launch
from agents.player import Player
from seqgan_env.data.corpus import naming
from seqgan_env.evaluation.run_logs import CONFIG
from seqgan_env.game import SequenceGame
from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.saved_game import BEST, load_generator, spellings
from seqgan_env.support.cuda_graphs import without_graphs
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.settings import errors_in_flags, flag, flags_of
from seqgan_env.support.state_dicts import detached

SECONDS_BETWEEN_NOTES = 5.0


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; it ends a run as Ctrl-C does."""


class Run:
    """All parts of a run, and the state that its checkpoints store.

    After each round (an epoch, a fit, an update) it takes a note, a copy of the whole state in memory, and from time to time
    writes the latest note to disk. A run that is stopped for any reason can resume from it as if it had not been interrupted.

    A context manager: inside, the run's threads and CUDA graphs are in use, and SIGTERM acts like Ctrl-C; at the end the
    folder is released.

    Args:
        config: the run's settings.
        name: the name of its preset.
        task: the game that the config describes.
        agent: the agent that plays it.
        folder: the run's files.
        workers: the processes that train together; each has a `Run`, and the first one writes.
    """

    def __init__(
        self, config: TrainConfig, name: str, task: Task, agent: Player, folder: RunFolder, workers: Workers = ALONE
    ) -> None:
        self.config = config
        self.name = name
        self.task = task
        self.agent = agent
        self.folder = folder
        self.workers = workers
        agent.set_logger(folder.logger)
        task.game.share_work(workers)
        self.alarm = CollapseAlarm(config.collapse)
        self.watch = DiscriminatorWatch()
        self._best = BestKeeper(lambda: self.folder.save_weights(BEST, self.agent.generator, task.game))
        self._best_is_new = False
        device = self.game.device
        rng = torch.Generator(device).manual_seed(config.seed)
        real = self.game.real_sequences
        pretrain = config.pretrain if config.start_from is None else dataclasses.replace(config.pretrain, epochs=0)
        with errors_in_flags(flags_of(PretrainConfig, "pretrain.")):
            self.likelihood = LikelihoodTraining(self.agent.generator, real, pretrain, rng, workers)
        self._unchanging: dict[str, Any] = {"config": config_to_json(config, name), "origin": self._origin()}
        self.phase = Phase.LIKELIHOOD
        self.rounds = 0
        self._all_rounds = 0
        self._checkpoints = Checkpoints(self.folder.path / CHECKPOINTS, config.checkpoint.keep)
        self._note: dict[str, Any] | None = None
        self._is_new = False
        self._noted_at = self._written_at = time.monotonic()
        self._written_rounds = 0

    @classmethod
    def start(cls, config: TrainConfig, name: str, workers: Workers = ALONE) -> "Run":
        """A new run in its own folder; if torchrun has restarted its processes, the run that they had begun.

        If the settings are refused, no folder remains.

        Raises:
            OSError: the folder cannot be created, or the data cannot be read.
            ValueError: these workers cannot train together with these settings, or the settings do not fit the data.
        """
        if is_restarted():
            earlier = workers.of_first(lambda: {"run": str(earlier_run(config.out) or "")})["run"]
            if earlier:
                return cls.resume(Path(earlier), workers, objective=config.adversarial.objective)
        _check_workers(config, workers)
        task = make_task(config)
        agent = make_agent(config, task.game)
        config = dataclasses.replace(config, threads=threads_for(config, task.game, agent.generator))
        if not workers.is_first:
            return cls._of_parts(config, name, task, agent, NoRunFolder(config.out), workers)._agree()
        run_folder = RunFolder.create(config.out, name_of(config, name))
        try:
            config = with_absolute_paths(config)
            run_folder.save_text(CONFIG, config_to_json(config, name) + "\n")
            note = note_of_launch()
            if note is not None:
                run_folder.save_text(LAUNCH, note)
            data = KeptData.of(task)
            if data is not None:
                data.save(run_folder.path)
            run = cls(config, name, task, agent, run_folder, workers)
        except BaseException:
            run_folder.discard()
            raise
        run._is_new = True
        return run._agree()

    @classmethod
    def resume(
        cls,
        folder: Path,
        workers: Workers = ALONE,
        *,
        from_best: bool = False,
        clear_lock: bool = False,
        objective: str | None = None,
        **replaced: Any,
    ) -> "Run":
        """A run in the state of its newest complete checkpoint.

        Args:
            folder: the run's; only the first worker reads it.
            workers: their number may differ from before.
            from_best: go back to the best checkpoint; everything after it is lost.
            clear_lock: see `agents.experiment.run_folder.RunLock`.
            objective: the run's objective, if it has one; required because a file alone must not decide what code runs.
            replaced: settings that replace the run's own, such as `threads`, `device` or the path of its `data`; None keeps
                the old value. Another kind of device draws other random numbers.

        Raises:
            FileNotFoundError: there is no such run, or a file that it reads is missing.
            ValueError: no checkpoint is complete and of this version, or the data or the objective differ from before.
            FolderInUse: another process uses the folder.
        """
        if not workers.is_first:
            return cls._take_up(folder, None, from_best, workers, objective, replaced)
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"There is no run at {folder}. Expected a folder of train.py, such as runs/quick-….")
        lock = RunLock(folder, clear_lock or is_restarted())  # torchrun has ended all processes by then
        try:
            return cls._take_up(folder, lock, from_best, workers, objective, replaced)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _take_up(
        cls,
        folder: Path,
        lock: RunLock | None,
        from_best: bool,
        workers: Workers,
        objective: str | None,
        replaced: Mapping[str, Any],
    ) -> "Run":
        found = workers.of_first(lambda: _found_in(folder, from_best))
        state = found["state"]
        config, name = config_from_json(found["config"])
        config = _with_settings(config, replaced, folder)
        _check_objective(config.adversarial.objective, objective)
        _check_workers(config, workers)
        with _of_this_version(folder):
            starts = state is None or state["phase"] == Phase.LIKELIHOOD
        _check_files(config, folder, starts)
        task = make_task(config, None if found["kept"] is None else KeptData(*found["kept"]))
        agent = make_agent(config, task.game)
        config = dataclasses.replace(config, threads=threads_for(config, task.game, agent.generator))
        run_folder: RunFolder = NoRunFolder(folder)
        if lock is not None:
            with _of_this_version(folder):
                last_step = 0 if state is None else int(state["run"]["last_step"])
            run_folder = RunFolder(folder, lock, purge_after=last_step)
        return cls._of_parts(config, name, task, agent, run_folder, workers, state)

    @classmethod
    def _of_parts(
        cls,
        config: TrainConfig,
        name: str,
        task: Task,
        agent: Player,
        run_folder: RunFolder,
        workers: Workers,
        state: Mapping[str, Any] | None = None,
    ) -> "Run":
        """A run, new or with a stored state; if it cannot be made, its folder is released."""
        try:
            run = cls(config, name, task, agent, run_folder, workers)
            if state is not None:
                with _of_this_version(run_folder.path):
                    run._check_origin(state)
                    run._load(state)
        except BaseException:
            run_folder.close()
            raise
        return run

    def __enter__(self) -> "Run":
        self._old_handler: Any = None
        with ExitStack() as stack:
            stack.callback(self.folder.close)
            if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
                self._old_handler = signal.signal(signal.SIGTERM, _terminate)
                stack.callback(lambda: signal.signal(signal.SIGTERM, self._old_handler))
            stack.enter_context(computing_with(self.threads))
            if not self.config.cuda_graphs:
                stack.enter_context(without_graphs())
            self._at_exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._at_exit.close()

    def discard_if_nothing_was_learned(self) -> bool:
        """Remove the folder of a new run that has nothing to resume from; return whether it did."""
        nothing = self._is_new and self._note is None and self.workers.count == 1
        if nothing:
            self.folder.discard()
        return nothing

    def hold_off(self) -> None:
        """Ignore the next SIGTERM, which torchrun sends to all processes when one fails; a second one ends at once."""
        if self._old_handler is not None and signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, _ignore_once)

    @property
    def game(self) -> SequenceGame:
        """The game of the task."""
        return self.task.game

    @property
    def threads(self) -> int:
        """The number of threads on a CPU."""
        return threads_for(self.config, self.game, self.agent.generator)

    def step_done(self) -> None:
        """Take a note within a round, if the latest one is some seconds old."""
        if time.monotonic() - self._noted_at > SECONDS_BETWEEN_NOTES:
            self._take_note()

    def round_done(self) -> None:
        """Take a note after a round, and write a checkpoint if one is due."""
        self.rounds += 1
        self._all_rounds += 1
        self._take_note()
        settings = self.config.checkpoint
        minutes = (time.monotonic() - self._written_at) / 60
        if self._best_is_new:
            self._best_is_new = False
            self.write_checkpoint(best=True)
        elif self._all_rounds - self._written_rounds >= settings.every_rounds or minutes >= settings.every_minutes:
            self.write_checkpoint()

    def phase_done(self) -> None:
        """Begin the next phase, and write a checkpoint."""
        self.phase = self.phase.after
        self.rounds = 0
        self._take_note()
        self.write_checkpoint()

    def judge(self, metrics: Mapping[str, float], step: int) -> None:
        """Check an evaluation for collapse, and save the generator if it is the best so far.

        Args:
            metrics: the evaluation's results.
            step: the update after which they were measured; 0 at the start of the adversarial phase.
        """
        for message in self.alarm.check(metrics, step):
            tqdm.write(message)
        self._best_is_new |= self._best.offer(metrics, step)

    def take_weights(self, path: Path) -> None:
        """Load the generator's parameters from a file; only the first worker reads it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: its generator is not the one that the settings describe.
        """
        with naming("--start-from"):
            given = self.workers.of_first(lambda: load_generator(path, self.game).state_dict())
        try:
            self.agent.generator.load_state_dict(given)
        except RuntimeError as error:
            raise ValueError(
                f"--start-from {path} does not fit the generator that --generator describes: pass the generator settings of "
                f"the run that wrote it ({error})."
            ) from error

    def take_best(self) -> None:
        """Restore the generator's best parameters so far."""
        best = self.workers.of_first(lambda: self.folder.load_generator(BEST, self.game).state_dict())
        self.agent.generator.load_state_dict(best)
        tqdm.write(f"The generator was at its best after {self._best.step} updates; its parameters from then are restored.")

    def write_checkpoint(self, *, best: bool = False) -> Path | None:
        """Write the latest note to disk, if any, and return the file.

        Args:
            best: also keep it as the best checkpoint.

        Raises:
            OSError: it cannot be written; earlier ones are intact.
        """
        if self._note is None or not self.workers.is_first:
            return None
        state = {**self._note, "run": self.folder.full_state(self._note["run"])}
        self._written_at, self._written_rounds = time.monotonic(), state["all_rounds"]
        path = self._checkpoints.save(state, state["all_rounds"])
        if best:
            self._checkpoints.mark_best(path)
        return path

    def set_back(self) -> None:
        """Go back to the latest note, to drop an unfinished round."""
        if self._note is not None:
            self._load({**self._note, "run": self.folder.full_state(self._note["run"])})

    def _take_note(self) -> None:
        self._note = detached(self._state())
        self._noted_at = time.monotonic()

    def _agree(self) -> "Run":
        """Let all workers start from the first one's state, which theirs should equal."""
        if self.workers.count > 1:
            state = self.workers.of_first(self._state)
            if not self.workers.is_first:
                self._check_origin(state)
                self._load(state)
        return self

    def _state(self) -> dict[str, Any]:
        return {
            **self._unchanging,
            "phase": self.phase.value,
            "rounds": self.rounds,
            "all_rounds": self._all_rounds,
            "agent": self.agent.training_state(),
            "likelihood": self.likelihood.training_state() if self.phase is Phase.LIKELIHOOD else None,
            "run": self.folder.training_state(),
            "alarm": self.alarm.training_state(),
            "watch": self.watch.training_state(),
            "best": self._best.training_state(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        self.phase, self.rounds, self._all_rounds = Phase(state["phase"]), state["rounds"], state["all_rounds"]
        self._written_rounds = self._all_rounds
        self.agent.load_training_state(state["agent"])
        if state["likelihood"] is not None:
            self.likelihood.load_training_state(state["likelihood"])
        self.folder.load_training_state(state["run"])
        self.alarm.load_training_state(state["alarm"])
        self.watch.load_training_state(state["watch"])
        self._best.load_training_state(state["best"])

    def _origin(self) -> dict[str, str]:
        """What determines the figures besides the settings. Other data are refused; other versions are only reported."""
        return {
            "data": fingerprint(self.game.real_sequences, self.task.held_out),
            "vocabulary": hashlib.sha256(json.dumps(spellings(self.game)).encode()).hexdigest(),
            "device": self.game.device.type,
            "made_by": f"seqgan_env {seqgan_env.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
            f"threads: {self.threads}",
        }

    def _check_origin(self, state: Mapping[str, Any]) -> None:
        """Refuse other data; print a note if another version or device may change figures."""
        before, now = state["origin"], self._unchanging["origin"]
        if before["data"] != now["data"] or before["vocabulary"] != now["vocabulary"]:
            source = getattr(self.config, "data", None) or getattr(self.config, "oracle_params", None) or "the oracle"
            raise ValueError(
                f"The real sequences, read from {source}, are not those that the run in {self.folder.path} began with: has "
                "its data file changed? Restore the old one, or start a new run."
            )
        if before["device"] != now["device"]:
            print(
                f"The run was on {before['device']} and continues on {now['device']}: from here on its random numbers, and "
                "so its figures, differ."
            )
        if before["made_by"] != now["made_by"]:
            print(f"The run began with {before['made_by']}; with {now['made_by']} its figures may differ.")


def _check_workers(config: TrainConfig, workers: Workers) -> None:
    if workers.count == 1:
        return
    if config.agent != "reinforce":
        raise ValueError(
            f"Under torchrun only the agent reinforce trains in several processes, got {config.agent} and {workers.count} "
            "processes: use --agent reinforce, or one process."
        )
    if config.adversarial.batch_size % workers.count:
        raise ValueError(
            f"--adversarial.batch-size is the whole batch, which {workers.count} processes share equally: {workers.count} "
            f"does not divide {config.adversarial.batch_size}. Use a multiple of {workers.count}."
        )


def _with_settings(config: TrainConfig, given: Mapping[str, Any], folder: Path) -> TrainConfig:
    """A run's config with some settings replaced."""
    given = {name: value for name, value in given.items() if value is not None}
    unknown = [flag(name) for name in given if not hasattr(config, name)]
    if unknown:
        raise ValueError(f"The run in {folder} has no {' and no '.join(unknown)}: leave it out.")
    return with_absolute_paths(dataclasses.replace(config, **given))


def _check_files(config: TrainConfig, folder: Path, starts: bool) -> None:
    """Refuse a run if a file that it reads is missing. It reads the weights of `start_from` only if it `starts`."""
    for field in dataclasses.fields(config):
        path = getattr(config, field.name)
        needed = isinstance(path, Path) and field.name != "out" and (field.name != "start_from" or starts)
        if needed and not path.exists():
            raise FileNotFoundError(
                f"The run in {folder} reads {flag(field.name)} {path}, and there is no such file. If it was moved, add "
                f"{flag(field.name)} with its new path."
            )


def _found_in(folder: Path, from_best: bool) -> dict[str, Any]:
    """A run's settings, its state if it has a checkpoint, and its stored sequences if any."""
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    if from_best:
        checkpoints.go_back_to_best()
    state = _newest_state(checkpoints)
    with _of_this_version(folder):
        text = (folder / CONFIG).read_text(encoding="utf-8") if state is None else state["config"]
    kept = KeptData.load(folder)
    return {"config": text, "state": state, "kept": None if kept is None else list(kept)}


@contextmanager
def _of_this_version(folder: Path) -> Iterator[None]:
    """In this context, errors from a complete checkpoint with other content become a ValueError that says so."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"The checkpoint of {folder} does not contain what this program reads ({error!r}): another version or another "
            "program wrote it."
        ) from error


def _newest_state(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The state in a run's newest complete checkpoint; None if the run was stopped before its first."""
    try:
        path, state, complaints = checkpoints.newest()
    except FileNotFoundError:
        print(f"{checkpoints.folder} holds no checkpoint: the run starts again.")
        return None
    for complaint in complaints:
        print(f"{complaint} Using the one before it.")
    print(f"Resuming from {path}.")
    return state


def _check_objective(of_run: str | None, given: str | None) -> None:
    """Refuse to import a function only because a file names it."""
    if of_run != given:
        raise ValueError(
            f"The run's objective is {of_run!r}, but {given!r} was given. "
            + (
                "It has none: leave --objective out."
                if of_run is None
                else f"Its code would be executed: if you trust it, add --objective {of_run}"
            )
        )


def fingerprint(*tensors: torch.Tensor) -> str:
    """A checksum of the tensors' values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _ignore_once(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once
    raise Terminated
