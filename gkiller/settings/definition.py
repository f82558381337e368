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
    default: Any, *, unit: str = "", flag: str = "", alias: str = "", **constraints: Any
) -> Any:  # Any: the field's own annotation is the type
    """Declare a setting; the docstring below it is shown by ``--help``, ``config show`` and the reference.

    Args:
        unit: what a number counts ("tokens", "rows", "epochs", "seconds").
        flag: the command-line flag that sets it, such as ``--lr``.
        alias: a second flag of the same meaning.
        constraints: pydantic's (``ge``, ``gt``, ``le``, ``lt``, ``min_length``...).
    """
    extra: dict[str, Any] = {"unit": unit, "flag": flag, "alias": alias}
    return Field(default, json_schema_extra=extra, **constraints)


class _Section(BaseModel):
    """A group of settings: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataSettings(_Section):
    """Where comments come from and how they become rows."""

    source: str = setting("sample", flag="--data")
    """Training data: 'sample', a prepared directory, a file or folder, or a hub data set."""
    revision: str | None = setting(None, flag="--revision")
    """Revision of a hub data set: branch, tag or commit."""
    text_column: str | None = setting(None, flag="--text-column")
    """Column that holds the comment; guessed from usual names when not set."""
    label_columns: tuple[str, ...] = setting((), flag="--label-columns")
    """Columns that hold labels, comma-separated; one column becomes 'toxicity'."""
    id_column: str | None = setting(None, flag="--id-column")
    """Column that identifies a comment."""
    weight_column: str | None = setting(None, flag="--weight-column")
    """Column of sample weights, honoured wherever something is measured, not by the loss."""
    cutoff: float = setting(0.5, flag="--cutoff", gt=0, le=1)
    """A score in 0..1 at or above this is a positive label."""
    positive_values: tuple[str, ...] = setting((), flag="--positive-values")
    """Class names that count as positive, comma-separated, in any case; every other class is negative."""
    valid_share: float = setting(0.1, flag="--valid-share", gt=0, lt=0.5)
    """Share of rows split off for validation."""
    test_share: float = setting(0.1, flag="--test-share", ge=0, lt=0.5)
    """Share of rows split off for the test."""
    split_seed: int = setting(0, flag="--split-seed", ge=0)
    """Seed of the split into train, valid and test."""
    on_error: Literal["refuse", "skip"] = setting("refuse", flag="--on-error")
    """A bad row: refuse the source, or skip the row and count it."""
    sample_size: int | None = setting(None, unit="rows", flag="--sample-size", ge=2)
    """Train on at most this many rows, drawn stratified."""


class AugmentSettings(_Section):
    """Changed copies of comments that keep their labels."""

    kinds: tuple[str, ...] = setting((), flag="--kinds")
    """Kinds of change, or families of them (noise, obfuscation, eda, style), comma-separated; every kind when empty."""
    rate: float = setting(1.0, flag="--rate", ge=0, le=1)
    """Share of the comments that are changed."""
    intensity: float = setting(0.2, flag="--intensity", gt=0, le=1)
    """Share of the words, or places in a comment, that a change touches; at least one."""
    copies: int = setting(1, unit="copies", flag="--copies", ge=1, le=10)
    """Changed copies of a comment, each of another kind where there is one."""
    seed: int = setting(0, flag="--augment-seed", ge=0, lt=2**32)
    """Seed of the changes."""
    seq2seq: tuple[str, ...] = setting((), flag="--seq2seq")
    """Directory of a seq2seq model that adds a paraphrase of each comment drawn; two, comma-separated, translate there
    and back."""
    seq2seq_prefix: str = setting("")
    """Text put before each text that a seq2seq model reads."""
    seq2seq_batch_size: int = setting(16, unit="rows", ge=1)
    """Texts a seq2seq model reads at once."""


class ModelSettings(_Section):
    """The network: encoder, pooling and head."""

    arch: Literal["tiny", "giant"] = setting("tiny", flag="--arch")
    """A tiny BERT, with dendrites if wanted; or a giant to compare it with: a pretrained encoder (BERT, DistilBERT,
    MPNet or RoBERTa) that is fine-tuned, with defaults of its own."""
    encoder: str = setting("auto", flag="--encoder", alias="--base-model")
    """'default' (the shipped model's), 'fresh' (random weights), a local path (an encoder, or a model with a graph
    alone), or a hub id of a BERT encoder; a giant's may be DistilBERT, MPNet or RoBERTa too. 'auto' is 'default' where
    a model is shipped that fits the tokenizer, the shape and the length that are set, else 'fresh'."""
    head: Literal["fresh", "kept"] = setting("fresh")
    """What scores the labels at first: 'fresh' (random weights), or 'kept', what the gkiller model of model.encoder has
    for labels of the same names."""
    revision: str | None = setting(None)
    """Revision of a hub encoder: branch, tag or commit."""
    tokenizer: str | None = setting(None, flag="--tokenizer")
    """A tokenizer.json to use; else the encoder's own, or the one gkiller ships."""
    layers: int = setting(2, ge=1, le=24)
    """Layers of a fresh encoder."""
    hidden: int = setting(128, unit="features", ge=8, le=1024)
    """Hidden size of a fresh encoder."""
    heads: int = setting(2, ge=1, le=16)
    """Attention heads of a fresh encoder."""
    ffn: int = setting(512, unit="features", ge=8, le=4096)
    """Feed-forward size of a fresh encoder."""
    max_length: int = setting(128, unit="tokens", flag="--max-length", ge=8, le=512)
    """Longest comment the model reads; the rest is cut."""
    pooling: Literal["mean", "mean_max", "cls"] = setting("mean_max")
    """How token vectors become one: mean, mean beside maximum, or BERT's pooler on [CLS]."""
    dropout: float = setting(0.2, ge=0, lt=1)
    """Dropout of hidden states, and before the head."""

    attention_dropout: float = setting(0.0, ge=0, lt=1)
    """Dropout of attention weights; above 0 the CPU's fast attention kernel is not used."""

    @model_validator(mode="after")
    def _buildable(self) -> ModelSettings:
        if self.arch == "giant" and self.encoder in ("auto", "fresh"):
            what = "model.arch 'giant' needs a pretrained encoder"
            raise ValueError(f"{what}: model.encoder must not be '{self.encoder}'")
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden ({self.hidden}) must be a multiple of model.heads ({self.heads})")
        return self


class DendriteSettings(_Section):
    """Artificial dendrites and the phases that train them."""

    enabled: bool = setting(True, flag="--dendrites/--no-dendrites")
    """Grow dendrites after the neuron phase."""
    patterns: tuple[str, ...] = setting(("*",))
    """Which of the encoder's Linears grow dendrites: shell patterns on their names, such as 'encoder.layer.1.*' or
    '*.output.dense', comma-separated."""
    count: int = setting(1, ge=1, le=5)
    """Dendrites grown per Linear, one dendrite phase for each."""
    activation: Literal["sigmoid", "tanh", "relu", "gelu"] = setting("sigmoid")
    """A dendrite's non-linearity."""
    objective: Literal["gradient", "correlation"] = setting("gradient", flag="--dendrite-objective")
    """What a dendrite phase maximises: the task itself, or the correlation with the neurons' error."""
    init_std: float = setting(0.01, gt=0, le=1)
    """Standard deviation of a new dendrite's weights (perforatedai's own is 0.01)."""
    top_epochs: int | None = setting(None, unit="epochs", ge=1)
    """The part of a correlation phase that trains the top weights alone; a third of it when not set."""
    switch: Literal["fixed", "history"] = setting("fixed")
    """End the neuron phase after its epochs, or when the tracker sees no more gain."""
    switch_patience: int = setting(2, unit="epochs", ge=1)
    """Epochs without gain before the history rule switches."""
    epochs: int | None = setting(None, unit="epochs", flag="--dendrite-epochs", ge=1)
    """Length of a dendrite phase, neurons frozen; half of the neuron phase when not set."""
    lr: float = setting(1e-2, flag="--dendrite-lr", gt=0, le=1)
    """Learning rate of the dendrites."""
    joint_epochs: int | None = setting(None, unit="epochs", ge=0)
    """Joint fine-tuning after a dendrite phase, 0 for none; a sixth of the neuron phase when not set."""
    joint_lr: float = setting(1e-4, gt=0, le=1)
    """Learning rate of everything in joint fine-tuning."""
    min_gain: float | None = setting(None, ge=-1, le=1)
    """A dendrite stays when the validation metric gains more than this: 0 for any gain, -1 always; when not set, where
    the paired bootstrap interval of the gain is above 0."""

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

    epochs: int | None = setting(None, unit="epochs", flag="--epochs", ge=1)
    """Length of the neuron phase; when not set, 1, or more on small data, for about 1,000 steps."""
    batch_size: int = setting(32, unit="rows", flag="--batch-size", ge=1)
    """Comments per step, over all processes."""
    lr: float = setting(1e-3, flag="--lr", gt=0, le=1)
    """Peak learning rate of the neurons."""
    weight_decay: float = setting(0.01, ge=0, le=1)
    """AdamW's decoupled weight decay; biases and LayerNorm get none."""
    schedule: Literal["linear", "step"] = setting("linear")
    """Learning rate over a phase: warm-up then linear decay to 0, or StepLR per epoch."""
    warmup_share: float = setting(0.1, ge=0, lt=1)
    """Share of a phase's steps that warm up (linear schedule)."""
    step_size: int = setting(1, unit="epochs", ge=1)
    """Epochs between two decays (step schedule)."""
    step_gamma: float = setting(0.1, gt=0, le=1)
    """Factor of each decay (step schedule)."""
    token_dropout: float = setting(0.15, ge=0, lt=1)
    """Share of tokens hidden behind [MASK] in training, drawn anew each time."""
    augment: float = setting(0.0, flag="--augment", ge=0, le=1)
    """Share of the training comments that are changed, anew in each epoch, by the kinds and the intensity of the
    augment settings; their labels and what teachers say of them stay."""
    clip_norm: float = setting(1.0, ge=0)
    """Largest global gradient norm; 0 for no clipping."""
    freeze_layers: int = setting(0, unit="layers", flag="--freeze-layers", ge=0, le=256)
    """Leave the embeddings and so many of the lowest layers of a pretrained encoder as they are; their outputs are
    computed once and kept on the disk while training."""
    patience: int = setting(3, unit="epochs", flag="--patience", ge=1)
    """Epochs without a better validation metric that end a phase."""
    metric: Literal["ap", "f1"] = setting("ap", flag="--metric")
    """Validation metric for early stopping and the best model (macro over labels)."""
    metric_labels: tuple[str, ...] = setting(())
    """Labels whose mean is the validation metric, comma-separated; every label when empty. A label of a handful of
    positives moves the mean by chance."""
    class_weights: Literal["balanced", "none"] = setting("balanced", flag="--class-weights")
    """Weight classes by inverse frequency (scikit-learn's 'balanced'), or not."""
    seed: int = setting(0, flag="--seed", ge=0, lt=2**32)
    """Seed of weights, data order and dropout."""
    threads: int = setting(0, flag="--threads", ge=0, le=1024)
    """CPU threads of each process; 0 for OMP_NUM_THREADS where it is set, else one per core."""
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", flag="--device")
    """Where to train."""
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", flag="--precision")
    """Numbers of the matrix products: bf16 (the weights stay fp32), or fp32 throughout; auto is bf16 on CUDA, else
    fp32. On CPUs with AVX512-BF16 or AMX bf16 trains giants some times faster."""
    checkpoint_seconds: float | None = setting(60.0, unit="seconds", ge=0)
    """Write a checkpoint within an epoch when this time has passed since the last one."""
    checkpoint_steps: int | None = setting(None, unit="steps", ge=1)
    """Write a checkpoint within an epoch after each so many steps."""
    keep_checkpoints: int = setting(2, ge=1)
    """Newest checkpoints kept, beside the best weights."""


class DistillSettings(_Section):
    """What is learnt from teachers, beside the comments' own labels."""

    teachers: tuple[str, ...] = setting((), flag="--teacher")
    """Trained classifiers to learn from, comma-separated or one by one: gkiller runs or models, sequence classifiers of
    transformers (directories or hub ids), or files of their scores; of several, the mean of the logits."""
    label_weight: float = setting(1.0, ge=0, le=1000)
    """Weight of the labels' own loss beside the teachers'; 0 leaves labels out."""
    logit_weight: float = setting(1.0, ge=0, le=1000)
    """Weight of the mean squared difference from the teachers' logits."""
    hidden_weight: float = setting(0.0, ge=0, le=1_000_000)
    """Weight of similarity-preserving transfer: how alike comments are in the teachers' last layer."""
    transfer: str | None = setting(None, flag="--transfer")
    """File of comments without labels, learnt from the teachers alone: text with a comment a line, CSV, TSV, JSON Lines
    or Parquet."""
    transfer_column: str | None = setting(None)
    """Column of the transfer file that holds the comment; guessed from usual names when not set."""
    transfer_rows: int | None = setting(None, unit="rows", ge=1)
    """Use at most this many comments of the transfer file, drawn at random."""
    batch_size: int = setting(32, unit="rows", ge=1)
    """Comments that a teacher scores at once."""
    precision: Literal["auto", "fp32", "bf16"] = setting("fp32")
    """Numbers of a teacher's matrix products, as train.precision."""

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

    resamples: int = setting(1000, flag="--resamples", ge=10, le=100_000)
    """Bootstrap resamples of an interval."""
    confidence: float = setting(0.95, gt=0, lt=1)
    """Coverage of an interval."""
    bootstrap_seed: int = setting(0, ge=0)
    """Seed of the bootstrap."""
    batch_size: int = setting(256, unit="rows", ge=1)
    """Comments per forward pass."""
    long_text: Literal["window", "truncate"] = setting("window", flag="--long-text")
    """Comments longer than the model reads at once: overlapping windows, of which the highest score counts, as predict
    and load() read by default; or their beginning alone. Training takes it for the final thresholds and figures; its
    losses and the score of each epoch are of the beginning."""
    min_precision: float | None = setting(None, flag="--min-precision", gt=0, le=1)
    """Tune the threshold for the best recall at this precision."""
    min_recall: float | None = setting(None, flag="--min-recall", gt=0, le=1)
    """Tune the threshold for the best precision at this recall."""
    threshold_rule: Literal["observed", "expected"] = setting("observed", flag="--threshold-rule")
    """Tune the threshold for the best F1 that is observed, or for the best that is expected of the scores after
    logistic calibration: single comments move it less."""
    f1_slack: float = setting(0.0, flag="--f1-slack", ge=0, lt=1)
    """Tune for the lowest threshold whose F1 is at most this much less than the best: more recall, and nearer to the
    best where more comments are positive than in validation."""
    ece_bins: int = setting(15, ge=2, le=1000)
    """Equal-width bins of the expected calibration error."""

    @model_validator(mode="after")
    def _one_target(self) -> EvaluationSettings:
        if self.min_precision is not None and self.min_recall is not None:
            raise ValueError("set evaluation.min_precision or evaluation.min_recall, not both")
        asked = self.min_precision is not None or self.min_recall is not None
        targets = "with evaluation.min_precision or evaluation.min_recall"
        if asked and self.threshold_rule == "expected":
            raise ValueError(f"evaluation.threshold_rule must be 'observed' {targets}")
        if asked and self.f1_slack:
            raise ValueError(f"evaluation.f1_slack must be 0 {targets}")
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

    parity_rows: int = setting(5000, unit="rows", flag="--parity-rows", ge=1)
    """Validation comments that an export is compared on."""
    calibration_rows: int = setting(1000, unit="rows", ge=1)
    """Validation comments that the ranges of static int8 come from."""
    fp32_score_difference: float = setting(1e-4, ge=0, le=1)
    """Largest difference of a score that an fp32 export may have."""
    fp32_flips: float = setting(0.0, ge=0, le=1)
    """Share of decisions that an fp32 export may flip."""
    fp32_ap_loss: float = setting(1e-4, ge=0, le=1)
    """Average precision that an fp32 export may lose on any label."""
    fp32_f1_loss: float = setting(1e-4, ge=0, le=1)
    """F1 that an fp32 export may lose on any label."""
    int8_score_difference: float = setting(0.1, ge=0, le=1)
    """Largest difference of a score that int8 weights or fp16 storage may make."""
    int8_flips: float = setting(0.005, ge=0, le=1)
    """Share of decisions that int8 weights or fp16 storage may flip."""
    int8_ap_loss: float = setting(0.003, ge=0, le=1)
    """Average precision that int8 weights or fp16 storage may lose on any label."""
    int8_f1_loss: float = setting(0.01, ge=0, le=1)
    """F1 that int8 weights or fp16 storage may lose on any label."""
    int8_least_positives: int = setting(100, unit="rows", ge=0)
    """Positive comments below which a label's F1 and average precision are not compared."""


class BenchSettings(_Section):
    """What is timed, how often, and what counts as keeping up."""

    rows: int = setting(512, unit="rows", flag="--rows", ge=1)
    """Comments of a timed pass, drawn from the test rows."""
    rounds: int = setting(10, unit="rounds", flag="--rounds", ge=2)
    """Timed passes; each times every system once, in turns."""
    timing_processes: int = setting(5, flag="--timing-processes", ge=1)
    """Fresh processes that the timed passes are spread over: where a process's memory lies makes a network some per
    cent faster or slower as long as it lives."""
    warm_up: int = setting(1, unit="rounds", ge=1)
    """Passes before them that are thrown away, in each process."""
    latency_tokens: tuple[int, ...] = setting((16, 64, 128), unit="tokens", flag="--latency-tokens")
    """Tokens of the single comments whose latency is timed, comma-separated; lengths over the model's own are left
    out."""
    latency_rounds: int = setting(100, unit="rounds", flag="--latency-rounds", ge=2)
    """Single comments timed at each length, in all."""
    threads: int = setting(1, ge=1, le=1024)
    """CPU threads of every system, set before its process starts."""
    batch_size: int = setting(16, unit="rows", ge=1)
    """Comments per batch of a timed pass, of like length."""
    processes: int = setting(5, flag="--processes", ge=1)
    """Fresh processes that a cold start and its memory are measured in."""
    memory_rows: int = setting(64, unit="rows", ge=1)
    """Comments scored while the peak memory is measured."""
    seed: int = setting(0, ge=0, lt=2**32)
    """Seed of the drawn comments, the bootstrap of timings and random weights."""
    margin: float = setting(0.02, flag="--margin", gt=0, lt=1)
    """F1 that the model may lose to the giant, as a share of the giant's."""

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
        flag="--space",
    )
    """What is searched: KEY=RANGE, a range being A..B, log:A..B, int:A..B or choices a,b,c; in a file a table
    [sweep.space]."""
    trials: int = setting(20, unit="trials", flag="--trials", ge=1)
    """Trials in all, those before a resume included."""
    timeout: float | None = setting(None, unit="seconds", flag="--timeout", gt=0)
    """Begin no trial after this time; those that run are finished."""
    jobs: int = setting(1, unit="processes", flag="--jobs", ge=1, le=256)
    """Trials that train at a time, each in a process of its own with its part of the threads."""
    seed: int = setting(0, flag="--sampler-seed", ge=0, lt=2**32)
    """Seed of what is proposed."""
    startup_trials: int = setting(10, unit="trials", ge=1)
    """Trials drawn at random before the sampler (TPE) learns from them."""
    prune: bool = setting(True, flag="--prune/--no-prune")
    """End a trial whose best epoch so far is worse than the median of the others at the same epoch."""
    prune_trials: int = setting(5, unit="trials", ge=1)
    """Finished trials before the first is ended early."""
    prune_epochs: int = setting(2, unit="epochs", ge=1)
    """Epochs, over all phases, after which a trial may be ended early."""
    keep_models: Literal["best", "all"] = setting("best", flag="--keep-models")
    """Models and checkpoints that are kept: the best trial's, or all."""


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
    def _sections_agree(self) -> Settings:
        if self.train.freeze_layers and self.model.encoder in ("auto", "fresh"):
            raise ValueError(f"train.freeze_layers must be 0 when model.encoder is '{self.model.encoder}'")
        changing = {
            "dendrites.enabled must be false": self.dendrites.enabled,
            "train.token_dropout must be 0": self.train.token_dropout,
            "train.augment must be 0": self.train.augment,
        }
        for rule in (rule for rule, broken in changing.items() if broken and self.train.freeze_layers):
            raise ValueError(f"{rule} when train.freeze_layers is above 0")
        if self.model.arch == "giant" and self.dendrites.enabled:
            raise ValueError("dendrites.enabled must be false when model.arch is 'giant'")
        return self
