"""The one definition of every setting: name, type, default, range, unit, flag and meaning.

Defaults, presets, ``gkiller.toml``, ``GKILLER_*`` variables, command-line flags and the generated
reference all come from the classes below. Add a setting here and nowhere else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "GKILLER_"
ENV_DELIMITER = "__"
SHORTEST, LONGEST = 3, 512
"""Tokens of a comment whose latency can be timed: a piece between [CLS] and [SEP], and BERT's positions."""


def setting(
    default: Any, description: str, *, unit: str = "", flag: str = "", alias: str = "", **constraints: Any
) -> Any:  # Any: the field's own annotation is the type
    """Declare a setting.

    Args:
        description: one sentence, shown by ``--help``, ``config show`` and the reference.
        unit: what a number counts ("tokens", "rows", "epochs", "seconds").
        flag: the command-line flag that sets it, such as ``--lr``.
        alias: a second flag of the same meaning.
        constraints: pydantic's (``ge``, ``gt``, ``le``, ``lt``, ``min_length``...).
    """
    extra: dict[str, Any] = {"unit": unit, "flag": flag, "alias": alias}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class _Section(BaseModel):
    """A group of settings: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(_Section):
    """Where comments come from and how they become rows."""

    source: str = setting(
        "sample", "Training data: 'sample', a prepared directory, a file or folder, or a hub data set.", flag="--data"
    )
    revision: str | None = setting(None, "Revision of a hub data set: branch, tag or commit.", flag="--revision")
    text_column: str | None = setting(
        None, "Column that holds the comment; guessed from usual names when not set.", flag="--text-column"
    )
    label_columns: tuple[str, ...] = setting(
        (), "Columns that hold labels, comma-separated; one column becomes 'toxicity'.", flag="--label-columns"
    )
    id_column: str | None = setting(None, "Column that identifies a comment.", flag="--id-column")
    weight_column: str | None = setting(
        None,
        "Column of sample weights, honoured wherever something is measured, not by the loss.",
        flag="--weight-column",
    )
    cutoff: float = setting(0.5, "A score in 0..1 at or above this is a positive label.", flag="--cutoff", gt=0, le=1)
    positive_values: tuple[str, ...] = setting(
        (),
        "Class names that count as positive, comma-separated, in any case; every other class is negative.",
        flag="--positive-values",
    )
    valid_share: float = setting(0.1, "Share of rows split off for validation.", flag="--valid-share", gt=0, lt=0.5)
    test_share: float = setting(0.1, "Share of rows split off for the test.", flag="--test-share", ge=0, lt=0.5)
    split_seed: int = setting(0, "Seed of the split into train, valid and test.", flag="--split-seed", ge=0)
    on_error: Literal["refuse", "skip"] = setting(
        "refuse", "A bad row: refuse the source, or skip the row and count it.", flag="--on-error"
    )
    sample_size: int | None = setting(
        None, "Train on at most this many rows, drawn stratified.", unit="rows", flag="--sample-size", ge=2
    )


class AugmentSettings(_Section):
    """Changed copies of comments that keep their labels."""

    kinds: tuple[str, ...] = setting(
        (),
        "Kinds of change, or families of them (noise, obfuscation, eda, style), comma-separated; every kind "
        "when empty.",
        flag="--kinds",
    )
    rate: float = setting(1.0, "Share of the comments that are changed.", flag="--rate", ge=0, le=1)
    intensity: float = setting(
        0.2,
        "Share of the words, or places in a comment, that a change touches; at least one.",
        flag="--intensity",
        gt=0,
        le=1,
    )
    copies: int = setting(
        1,
        "Changed copies of a comment, each of another kind where there is one.",
        unit="copies",
        flag="--copies",
        ge=1,
        le=10,
    )
    seed: int = setting(0, "Seed of the changes.", flag="--augment-seed", ge=0, lt=2**32)
    seq2seq: tuple[str, ...] = setting(
        (),
        "Directory of a seq2seq model that adds a paraphrase of each comment drawn; two, comma-separated, "
        "translate there and back.",
        flag="--seq2seq",
    )
    seq2seq_prefix: str = setting("", "Text put before each text that a seq2seq model reads.")
    seq2seq_batch_size: int = setting(16, "Texts a seq2seq model reads at once.", unit="rows", ge=1)


class ModelSettings(_Section):
    """The network: encoder, pooling and head."""

    arch: Literal["tiny", "giant"] = setting(
        "tiny",
        "A tiny BERT, with dendrites if wanted; or a giant to compare it with: a pretrained encoder "
        "(BERT, DistilBERT, MPNet or RoBERTa) that is fine-tuned, with defaults of its own.",
        flag="--arch",
    )
    encoder: str = setting(
        "auto",
        "'default' (the shipped model's), 'fresh' (random weights), a local path (an encoder, or a model "
        "with a graph alone), or a hub id of a BERT encoder; a giant's may be DistilBERT, MPNet or "
        "RoBERTa too. 'auto' is 'default' where a model is shipped that fits the tokenizer, the shape and "
        "the length that are set, else 'fresh'.",
        flag="--encoder",
        alias="--base-model",
    )
    head: Literal["fresh", "kept"] = setting(
        "fresh",
        "What scores the labels at first: 'fresh' (random weights), or 'kept', what the gkiller model of "
        "model.encoder has for labels of the same names.",
    )
    revision: str | None = setting(None, "Revision of a hub encoder: branch, tag or commit.")
    tokenizer: str | None = setting(
        None, "A tokenizer.json to use; else the encoder's own, or the one gkiller ships.", flag="--tokenizer"
    )
    layers: int = setting(2, "Layers of a fresh encoder.", ge=1, le=24)
    hidden: int = setting(128, "Hidden size of a fresh encoder.", unit="features", ge=8, le=1024)
    heads: int = setting(2, "Attention heads of a fresh encoder.", ge=1, le=16)
    ffn: int = setting(512, "Feed-forward size of a fresh encoder.", unit="features", ge=8, le=4096)
    max_length: int = setting(
        128, "Longest comment the model reads; the rest is cut.", unit="tokens", flag="--max-length", ge=8, le=512
    )
    pooling: Literal["mean", "mean_max", "cls"] = setting(
        "mean_max", "How token vectors become one: mean, mean beside maximum, or BERT's pooler on [CLS]."
    )
    dropout: float = setting(0.2, "Dropout of hidden states, and before the head.", ge=0, lt=1)

    attention_dropout: float = setting(
        0.0, "Dropout of attention weights; above 0 the CPU's fast attention kernel is not used.", ge=0, lt=1
    )

    @model_validator(mode="after")
    def _giants_are_pretrained(self) -> ModelSettings:
        if self.arch == "giant" and self.encoder in ("auto", "fresh"):
            raise ValueError(
                f"model.arch 'giant' needs a pretrained encoder: model.encoder must not be '{self.encoder}'"
            )
        return self

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> ModelSettings:
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden ({self.hidden}) must be a multiple of model.heads ({self.heads})")
        return self


class DendriteSettings(_Section):
    """Artificial dendrites and the phases that train them."""

    enabled: bool = setting(True, "Grow dendrites after the neuron phase.", flag="--dendrites/--no-dendrites")
    patterns: tuple[str, ...] = setting(
        ("*",),
        "Which of the encoder's Linears grow dendrites: shell patterns on their names, "
        "such as 'encoder.layer.1.*' or '*.output.dense', comma-separated.",
    )
    count: int = setting(1, "Dendrites grown per Linear, one dendrite phase for each.", ge=1, le=5)
    activation: Literal["sigmoid", "tanh", "relu", "gelu"] = setting("sigmoid", "A dendrite's non-linearity.")
    objective: Literal["gradient", "correlation"] = setting(
        "gradient",
        "What a dendrite phase maximises: the task itself, or the correlation with the neurons' error.",
        flag="--dendrite-objective",
    )
    init_std: float = setting(
        0.01, "Standard deviation of a new dendrite's weights (perforatedai's own is 0.01).", gt=0, le=1
    )
    top_epochs: int | None = setting(
        None,
        "The part of a correlation phase that trains the top weights alone; a third of it when not set.",
        unit="epochs",
        ge=1,
    )
    switch: Literal["fixed", "history"] = setting(
        "fixed", "End the neuron phase after its epochs, or when the tracker sees no more gain."
    )
    switch_patience: int = setting(2, "Epochs without gain before the history rule switches.", unit="epochs", ge=1)
    epochs: int | None = setting(
        None,
        "Length of a dendrite phase, neurons frozen; half of the neuron phase when not set.",
        unit="epochs",
        flag="--dendrite-epochs",
        ge=1,
    )
    lr: float = setting(1e-2, "Learning rate of the dendrites.", flag="--dendrite-lr", gt=0, le=1)
    joint_epochs: int | None = setting(
        None,
        "Joint fine-tuning after a dendrite phase, 0 for none; a sixth of the neuron phase when not set.",
        unit="epochs",
        ge=0,
    )
    joint_lr: float = setting(1e-4, "Learning rate of everything in joint fine-tuning.", gt=0, le=1)
    min_gain: float | None = setting(
        None,
        "A dendrite stays when the validation metric gains more than this: 0 for any gain, -1 always; when "
        "not set, where the paired bootstrap interval of the gain is above 0.",
        ge=-1,
        le=1,
    )

    @model_validator(mode="after")
    def _room_for_correlation(self) -> DendriteSettings:
        least = self.top_epochs or 1
        if self.objective == "correlation" and self.epochs is not None and self.epochs <= least:
            rule = "be 2 or more" if least == 1 else f"exceed dendrites.top_epochs ({least})"
            when = "when dendrites.objective is 'correlation'"
            raise ValueError(f"dendrites.epochs ({self.epochs}) must {rule} {when}")
        return self


class TrainSettings(_Section):
    """The training loop."""

    epochs: int | None = setting(
        None,
        "Length of the neuron phase; when not set, 1, or more on small data, for about 1,000 steps.",
        unit="epochs",
        flag="--epochs",
        ge=1,
    )
    batch_size: int = setting(32, "Comments per step, over all processes.", unit="rows", flag="--batch-size", ge=1)
    lr: float = setting(1e-3, "Peak learning rate of the neurons.", flag="--lr", gt=0, le=1)
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay; biases and LayerNorm get none.", ge=0, le=1)
    schedule: Literal["linear", "step"] = setting(
        "linear", "Learning rate over a phase: warm-up then linear decay to 0, or StepLR per epoch."
    )
    warmup_share: float = setting(0.1, "Share of a phase's steps that warm up (linear schedule).", ge=0, lt=1)
    step_size: int = setting(1, "Epochs between two decays (step schedule).", unit="epochs", ge=1)
    step_gamma: float = setting(0.1, "Factor of each decay (step schedule).", gt=0, le=1)
    token_dropout: float = setting(
        0.15, "Share of tokens hidden behind [MASK] in training, drawn anew each time.", ge=0, lt=1
    )
    augment: float = setting(
        0.0,
        "Share of the training comments that are changed, anew in each epoch, by the kinds and the intensity "
        "of the augment settings; their labels and what teachers say of them stay.",
        flag="--augment",
        ge=0,
        le=1,
    )
    clip_norm: float = setting(1.0, "Largest global gradient norm; 0 for no clipping.", ge=0)
    freeze_layers: int = setting(
        0,
        "Leave the embeddings and so many of the lowest layers of a pretrained encoder as they are; their "
        "outputs are computed once and kept on the disk while training.",
        unit="layers",
        flag="--freeze-layers",
        ge=0,
        le=256,
    )
    patience: int = setting(
        3, "Epochs without a better validation metric that end a phase.", unit="epochs", flag="--patience", ge=1
    )
    metric: Literal["ap", "f1"] = setting(
        "ap", "Validation metric for early stopping and the best model (macro over labels).", flag="--metric"
    )
    metric_labels: tuple[str, ...] = setting(
        (),
        "Labels whose mean is the validation metric, comma-separated; every label when empty. A label of a "
        "handful of positives moves the mean by chance.",
    )
    class_weights: Literal["balanced", "none"] = setting(
        "balanced", "Weight classes by inverse frequency (scikit-learn's 'balanced'), or not.", flag="--class-weights"
    )
    seed: int = setting(0, "Seed of weights, data order and dropout.", flag="--seed", ge=0, lt=2**32)
    threads: int = setting(
        0,
        "CPU threads of each process; 0 for OMP_NUM_THREADS where it is set, else one per core.",
        flag="--threads",
        ge=0,
        le=1024,
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where to train.", flag="--device")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto",
        "Numbers of the matrix products: bf16 (the weights stay fp32), or fp32 throughout; auto is bf16 on "
        "CUDA, else fp32. On CPUs with AVX512-BF16 or AMX bf16 trains giants some times faster.",
        flag="--precision",
    )
    checkpoint_seconds: float | None = setting(
        60.0, "Write a checkpoint within an epoch when this time has passed since the last one.", unit="seconds", ge=0
    )
    checkpoint_steps: int | None = setting(
        None, "Write a checkpoint within an epoch after each so many steps.", unit="steps", ge=1
    )
    keep_checkpoints: int = setting(2, "Newest checkpoints kept, beside the best weights.", ge=1)


class DistillSettings(_Section):
    """What is learnt from teachers, beside the comments' own labels."""

    teachers: tuple[str, ...] = setting(
        (),
        "Trained classifiers to learn from, comma-separated or one by one: gkiller runs or models, "
        "sequence classifiers of transformers (directories or hub ids), or files of their scores; of "
        "several, the mean of the logits.",
        flag="--teacher",
    )
    label_weight: float = setting(
        1.0, "Weight of the labels' own loss beside the teachers'; 0 leaves labels out.", ge=0, le=1000
    )
    logit_weight: float = setting(
        1.0, "Weight of the mean squared difference from the teachers' logits.", ge=0, le=1000
    )
    hidden_weight: float = setting(
        0.0,
        "Weight of similarity-preserving transfer: how alike comments are in the teachers' last layer.",
        ge=0,
        le=1_000_000,
    )
    transfer: str | None = setting(
        None,
        "File of comments without labels, learnt from the teachers alone: text with a comment a line, CSV, "
        "TSV, JSON Lines or Parquet.",
        flag="--transfer",
    )
    transfer_column: str | None = setting(
        None, "Column of the transfer file that holds the comment; guessed from usual names when not set."
    )
    transfer_rows: int | None = setting(
        None, "Use at most this many comments of the transfer file, drawn at random.", unit="rows", ge=1
    )
    batch_size: int = setting(32, "Comments that a teacher scores at once.", unit="rows", ge=1)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "fp32", "Numbers of a teacher's matrix products, as train.precision."
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> DistillSettings:
        if self.transfer is not None and not self.teachers:
            raise ValueError("distill.transfer must not be set without distill.teachers: nobody labels it")
        if self.teachers and not self.logit_weight + self.hidden_weight:
            raise ValueError("distill.logit_weight or distill.hidden_weight must be above 0 with distill.teachers")
        if not self.label_weight + self.logit_weight:
            raise ValueError("distill.label_weight or distill.logit_weight must be above 0")
        return self


class EvaluationSettings(_Section):
    """Metrics, intervals and thresholds."""

    resamples: int = setting(1000, "Bootstrap resamples of an interval.", flag="--resamples", ge=10, le=100_000)
    confidence: float = setting(0.95, "Coverage of an interval.", gt=0, lt=1)
    bootstrap_seed: int = setting(0, "Seed of the bootstrap.", ge=0)
    batch_size: int = setting(256, "Comments per forward pass.", unit="rows", ge=1)
    long_text: Literal["window", "truncate"] = setting(
        "window",
        "Comments longer than the model reads at once: overlapping windows, of which the highest score "
        "counts, as predict and load() read by default; or their beginning alone. Training takes it for the "
        "final thresholds and figures; its losses and the score of each epoch are of the beginning.",
        flag="--long-text",
    )
    min_precision: float | None = setting(
        None, "Tune the threshold for the best recall at this precision.", flag="--min-precision", gt=0, le=1
    )
    min_recall: float | None = setting(
        None, "Tune the threshold for the best precision at this recall.", flag="--min-recall", gt=0, le=1
    )
    threshold_rule: Literal["observed", "expected"] = setting(
        "observed",
        "Tune the threshold for the best F1 that is observed, or for the best that is expected of the scores "
        "after logistic calibration: single comments move it less.",
        flag="--threshold-rule",
    )
    f1_slack: float = setting(
        0.0,
        "Tune for the lowest threshold whose F1 is at most this much less than the best: more recall, and "
        "nearer to the best where more comments are positive than in validation.",
        flag="--f1-slack",
        ge=0,
        lt=1,
    )
    ece_bins: int = setting(15, "Equal-width bins of the expected calibration error.", ge=2, le=1000)

    @model_validator(mode="after")
    def _one_target(self) -> EvaluationSettings:
        if self.min_precision is not None and self.min_recall is not None:
            raise ValueError("set evaluation.min_precision or evaluation.min_recall, not both")
        asked = self.min_precision is not None or self.min_recall is not None
        if asked and self.threshold_rule == "expected":
            raise ValueError(
                "evaluation.threshold_rule must be 'observed' with evaluation.min_precision or evaluation.min_recall"
            )
        if asked and self.f1_slack:
            raise ValueError("evaluation.f1_slack must be 0 with evaluation.min_precision or evaluation.min_recall")
        return self

    def tuning(self) -> dict[str, Any]:
        """Return the arguments of `gkiller.evaluation.thresholds.tune_thresholds`."""
        return {
            "min_precision": self.min_precision,
            "min_recall": self.min_recall,
            "expected": self.threshold_rule == "expected",
            "f1_slack": self.f1_slack,
        }


class DeploymentSettings(_Section):
    """Exports: how far one may be from the trained model, and what it is measured on."""

    parity_rows: int = setting(
        5000, "Validation comments that an export is compared on.", unit="rows", flag="--parity-rows", ge=1
    )
    calibration_rows: int = setting(
        1000, "Validation comments that the ranges of static int8 come from.", unit="rows", ge=1
    )
    fp32_score_difference: float = setting(
        1e-4, "Largest difference of a score that an fp32 export may have.", ge=0, le=1
    )
    fp32_flips: float = setting(0.0, "Share of decisions that an fp32 export may flip.", ge=0, le=1)
    fp32_ap_loss: float = setting(1e-4, "Average precision that an fp32 export may lose on any label.", ge=0, le=1)
    fp32_f1_loss: float = setting(1e-4, "F1 that an fp32 export may lose on any label.", ge=0, le=1)
    int8_score_difference: float = setting(
        0.1, "Largest difference of a score that int8 weights or fp16 storage may make.", ge=0, le=1
    )
    int8_flips: float = setting(0.005, "Share of decisions that int8 weights or fp16 storage may flip.", ge=0, le=1)
    int8_ap_loss: float = setting(
        0.003, "Average precision that int8 weights or fp16 storage may lose on any label.", ge=0, le=1
    )
    int8_f1_loss: float = setting(0.01, "F1 that int8 weights or fp16 storage may lose on any label.", ge=0, le=1)
    int8_least_positives: int = setting(
        100, "Positive comments below which a label's F1 and average precision are not compared.", unit="rows", ge=0
    )


class BenchSettings(_Section):
    """What is timed, how often, and what counts as keeping up."""

    rows: int = setting(512, "Comments of a timed pass, drawn from the test rows.", unit="rows", flag="--rows", ge=1)
    rounds: int = setting(
        10, "Timed passes; each times every system once, in turns.", unit="rounds", flag="--rounds", ge=2
    )
    timing_processes: int = setting(
        5,
        "Fresh processes that the timed passes are spread over: where a process's memory lies makes a "
        "network some per cent faster or slower as long as it lives.",
        flag="--timing-processes",
        ge=1,
    )
    warm_up: int = setting(1, "Passes before them that are thrown away, in each process.", unit="rounds", ge=1)
    latency_tokens: tuple[int, ...] = setting(
        (16, 64, 128),
        "Tokens of the single comments whose latency is timed, comma-separated; lengths over the model's own "
        "are left out.",
        unit="tokens",
        flag="--latency-tokens",
    )
    latency_rounds: int = setting(
        100, "Single comments timed at each length, in all.", unit="rounds", flag="--latency-rounds", ge=2
    )
    threads: int = setting(1, "CPU threads of every system, set before its process starts.", ge=1, le=1024)
    batch_size: int = setting(16, "Comments per batch of a timed pass, of like length.", unit="rows", ge=1)
    processes: int = setting(
        5, "Fresh processes that a cold start and its memory are measured in.", flag="--processes", ge=1
    )
    memory_rows: int = setting(64, "Comments scored while the peak memory is measured.", unit="rows", ge=1)
    seed: int = setting(0, "Seed of the drawn comments, the bootstrap of timings and random weights.", ge=0, lt=2**32)
    margin: float = setting(
        0.02, "F1 that the model may lose to the giant, as a share of the giant's.", flag="--margin", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _lengths_in_range(self) -> BenchSettings:
        if not all(SHORTEST <= length <= LONGEST for length in self.latency_tokens):
            raise ValueError(f"every number of bench.latency_tokens must be in {SHORTEST}..{LONGEST}")
        return self


class SweepSettings(_Section):
    """Hyper-parameter search."""

    space: tuple[str, ...] = setting(
        (
            "train.lr=log:2e-4..5e-3",
            "train.epochs=int:1..4",
            "train.batch_size=16,32,64",
            "train.weight_decay=log:1e-4..1e-1",
            "train.token_dropout=0..0.3",
            "model.dropout=0..0.4",
            "model.pooling=mean,mean_max,cls",
        ),
        "What is searched: KEY=RANGE, a range being A..B, log:A..B, int:A..B or choices a,b,c; in a file a "
        "table [sweep.space].",
        flag="--space",
    )
    trials: int = setting(20, "Trials in all, those before a resume included.", unit="trials", flag="--trials", ge=1)
    timeout: float | None = setting(
        None, "Begin no trial after this time; those that run are finished.", unit="seconds", flag="--timeout", gt=0
    )
    jobs: int = setting(
        1,
        "Trials that train at a time, each in a process of its own with its part of the threads.",
        unit="processes",
        flag="--jobs",
        ge=1,
        le=256,
    )
    seed: int = setting(0, "Seed of what is proposed.", flag="--sampler-seed", ge=0, lt=2**32)
    startup_trials: int = setting(
        10, "Trials drawn at random before the sampler (TPE) learns from them.", unit="trials", ge=1
    )
    prune: bool = setting(
        True,
        "End a trial whose best epoch so far is worse than the median of the others at the same epoch.",
        flag="--prune/--no-prune",
    )
    prune_trials: int = setting(5, "Finished trials before the first is ended early.", unit="trials", ge=1)
    prune_epochs: int = setting(
        2, "Epochs, over all phases, after which a trial may be ended early.", unit="epochs", ge=1
    )
    keep_models: Literal["best", "all"] = setting(
        "best", "Models and checkpoints that are kept: the best trial's, or all.", flag="--keep-models"
    )


class Settings(BaseSettings):
    """Everything a run depends on, resolved and frozen; `gkiller.settings.resolve` reads the layers."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, allow_inf_nan=False
    )

    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    dendrites: DendriteSettings = DendriteSettings()
    train: TrainSettings = TrainSettings()
    distill: DistillSettings = DistillSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    bench: BenchSettings = BenchSettings()
    sweep: SweepSettings = SweepSettings()

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments alone: the layers were read before, with their origins."""
        return (sources["init_settings"],)

    @model_validator(mode="after")
    def _frozen_layers_are_pretrained(self) -> Settings:
        if self.train.freeze_layers == 0:
            return self
        if self.model.encoder in ("auto", "fresh"):
            raise ValueError(f"train.freeze_layers must be 0 when model.encoder is '{self.model.encoder}'")
        if self.dendrites.enabled:
            raise ValueError("dendrites.enabled must be false when train.freeze_layers is above 0")
        if self.train.token_dropout:
            raise ValueError("train.token_dropout must be 0 when train.freeze_layers is above 0")
        if self.train.augment:
            raise ValueError("train.augment must be 0 when train.freeze_layers is above 0")
        return self

    @model_validator(mode="after")
    def _giants_have_no_dendrites(self) -> Settings:
        if self.model.arch == "giant" and self.dendrites.enabled:
            raise ValueError("dendrites.enabled must be false when model.arch is 'giant'")
        return self
