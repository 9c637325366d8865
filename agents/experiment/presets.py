"""The presets of `train.py`: complete experiments, each with its purpose."""

from agents.experiment.config import AdversarialConfig, EvaluationConfig, OracleConfig, TextConfig, TrainConfig
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.rewards.density_ratio import DensityRatioConfig
from seqgan_env.rewards.text_cnn import TextCNNConfig

WHOLE_BATCHES = 156 * 64
"""The published code asks for 10,000 sequences, and drops what does not fill a batch."""

PRESETS: dict[str, tuple[TrainConfig, str]] = {
    "quick": (
        OracleConfig(
            vocab_size=50,
            n_real=50_000,
            generator=GeneratorConfig(embedding_dim=8, hidden_dim=8),
            pretrain=PretrainConfig(epochs=5, final_learning_rate=1e-3),
            discriminator=TextCNNConfig(
                widths=(2, 3), n_filters=(64, 64), embedding_dim=24, l2=0.0, learning_rate=8e-3, batch_size=256, epochs=1
            ),
            adversarial=AdversarialConfig(
                updates=200,
                batch_size=128,
                n_rollouts=2,
                scaling="log",
                learning_rate=3e-3,
                final_learning_rate=1e-3,
                baseline="leave-one-out",
                rollout_lag=0.0,
                d_pretrain_steps=50,
                g_steps=1,
                d_steps=1,
                n_generated=1000,
            ),
            evaluation=EvaluationConfig(n_samples=5000, n_held_out=5000, every_epochs=1, every_updates=20),
        ),
        "A little over a minute on two CPU cores: a small oracle, a small discriminator. The default.",
    ),
    "paper": (
        # As the published code runs, not as the paper's text has it; docs/results.md goes through every detail.
        OracleConfig(
            n_real=WHOLE_BATCHES,
            pretrain=PretrainConfig(shuffle=False),
            discriminator=TextCNNConfig(reshuffle=False, initial_parameters="published", precision="medium", compile=True),
            adversarial=AdversarialConfig(loss_reduction="sum", rollout_lag=0.0, n_generated=WHOLE_BATCHES),
            evaluation=EvaluationConfig(n_samples=WHOLE_BATCHES, every_updates=5),
        ),
        "The published experiment: vocabulary 5,000, 120 + 200 epochs and updates. Wants a GPU.",
    ),
    "paper-cpu": (
        OracleConfig(
            generator=GeneratorConfig(embedding_dim=128, hidden_dim=128, dropout=0.5),
            pretrain=PretrainConfig(epochs=40, learning_rate=3e-3, final_learning_rate=3e-4, precision="medium"),
            discriminator=TextCNNConfig(
                widths=(1, 2, 3),
                n_filters=(64, 64, 64),
                embedding_dim=32,
                dropout=0.5,
                l2=0.0,
                learning_rate=1e-3,
                weight_decay=0.1,
                batch_size=128,
                epochs=1,
                precision="medium",
            ),
            adversarial=AdversarialConfig(
                updates=100,
                batch_size=256,
                n_rollouts=2,
                reward_model="density-ratio",
                density_ratio=DensityRatioConfig(epochs=2, learning_rate_decay=0.89, precision="medium"),
                learning_rate=1e-3,
                final_learning_rate=1e-4,
                baseline="leave-one-out",
                entropy_coef=-0.15,
                rollout_lag=0.0,
                d_pretrain_steps=20,
                g_steps=34,
                d_steps=1,
                n_generated=10_000,
            ),
            evaluation=EvaluationConfig(every_epochs=10, every_updates=20),
        ),
        "The published data at sizes for two CPU cores: a regularised start, then a discriminator that scores each token.",
    ),
    "text": (
        TextConfig(
            generator=GeneratorConfig(embedding_dim=64, hidden_dim=128),
            pretrain=PretrainConfig(epochs=8, learning_rate=5e-3, final_learning_rate=5e-4),
            discriminator=TextCNNConfig(
                widths=(1, 2, 3, 4, 5), n_filters=(64,) * 5, l2=0.0, learning_rate=1e-3, weight_decay=0.1, epochs=1
            ),
            adversarial=AdversarialConfig(
                updates=60,
                batch_size=64,
                n_rollouts=4,
                scaling="centred",
                learning_rate=1e-4,
                baseline="leave-one-out",
                rollout_lag=0.0,
                d_pretrain_steps=10,
                g_steps=2,
                d_steps=1,
                n_generated=1000,
            ),
            evaluation=EvaluationConfig(n_samples=1000, every_epochs=2, every_updates=10),
        ),
        "Your own sequences: --data FILE, a sequence a line.",
    ),
}
