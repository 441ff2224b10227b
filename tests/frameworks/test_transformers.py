"""The Trainer of transformers on tiny models, by the callback, or by `record` around `train()`."""

import doctest

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sgd_analysis import record
from tests.frameworks.outcomes import left, norms_of
from tests.recording.outcomes import assert_same, seeded

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate, which the Trainer needs, is not installed")

from sgd_analysis.frameworks.transformers import RecorderCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:how many samples the batches of .* steps have is not known"),
]

WORDS, LENGTH = 17, 8


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2,
        bos_token_id=None, eos_token_id=None, loss_type="ForCausalLM",
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert():
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=LENGTH, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def sentences(model):
    """Twenty samples, as dicts."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(WORDS, (20, LENGTH), generator=generator)
    is_classified = isinstance(model, transformers.BertForSequenceClassification)
    return [{"input_ids": row, "labels": row.sum() % 3 if is_classified else row} for row in tokens]


def trainer_of(model, folder, **settings):
    seeded()
    model = model()
    arguments = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "num_train_epochs": 3,
            "per_device_train_batch_size": 6,
            "logging_steps": 1,
            "max_grad_norm": 1e9,  # none is clipped: what is logged is the norm before that
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
        }
        | settings
    )
    return transformers.Trainer(model, arguments, train_dataset=sentences(model))


def logged(trainer, name):
    return [row[name] for row in trainer.state.log_history if name in row]


LOOPS = {
    "language model": (gpt2, {}),
    "classifier": (bert, {}),
    "accumulated": (gpt2, {"gradient_accumulation_steps": 3}),
    "accumulated and undivided": (bert, {"gradient_accumulation_steps": 3}),
    "clipped": (gpt2, {"max_grad_norm": 0.1}),
    "in bfloat16": (bert, {"bf16": True}),
    "with Adafactor": (gpt2, {"optim": "adafactor"}),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_training_is_recorded_step_by_step_and_left_as_it_is(loop, tmp_path):
    model, settings = LOOPS[loop]
    bare = trainer_of(model, tmp_path, **settings)
    norms_of(bare.create_optimizer())
    bare.train()
    trainer = trainer_of(model, tmp_path, **settings)
    optimizer = trainer.create_optimizer()
    norms = norms_of(optimizer)
    callback = RecorderCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert_same(left(trainer.model, optimizer), left(bare.model, bare.optimizer.optimizer), loop)
    history = callback.history
    assert (history.n_steps, history.n_epochs) == (trainer.state.global_step, 3)
    # The Trainer adds up the losses of accumulated batches in single precision.
    rtol = 1e-7 if "accumulated" in loop else 0
    assert_allclose(history.loss, logged(trainer, "loss"), rtol=rtol)
    assert_array_equal(logged(trainer, "loss"), logged(bare, "loss"))
    assert_allclose(history.gradient_norm, norms, rtol=1e-6)
    if loop != "clipped":
        assert_allclose(norms, logged(trainer, "grad_norm"), rtol=1e-6)


def test_what_is_known_of_an_epoch_is_written_to_the_trainers_log(tmp_path):
    trainer = trainer_of(gpt2, tmp_path)
    callback = RecorderCallback(trainer, gradients="norms")
    trainer.add_callback(callback)
    trainer.train()
    table = callback.history.epochs()
    for name in ("running_loss", "mean_batch_loss", "path_gradient_norm", "mean_gradient_norm"):
        assert_array_equal(logged(trainer, f"sgd_analysis/{name}"), table[name])
    assert not logged(trainer, "sgd_analysis/n_steps")


def test_the_batch_loss_is_the_mean_over_the_tokens_whatever_the_trainer_divides_by(tmp_path):
    # Version 5.24 divides that of a GPT-2 by the number of labels, the first of each text included,
    # which nothing predicts.
    trainer = trainer_of(gpt2, tmp_path)
    means = []

    def see(model, args, kwargs, output):
        predictions, labels = output.logits[:, :-1], kwargs["labels"][:, 1:]
        mean = torch.nn.functional.cross_entropy(predictions.transpose(1, 2), labels)
        means.append(mean.item())

    trainer.model.register_forward_hook(see, with_kwargs=True)
    with record(trainer.create_optimizer()) as recorder:
        trainer.train()
    assert_allclose(recorder.history.batch_loss, means, rtol=1e-6)
    n_tokens = (LENGTH - 1) * np.array([6, 6, 6, 2])
    by_epoch = np.average(np.reshape(means, (3, 4)), axis=1, weights=n_tokens)
    assert_allclose(recorder.history.running_loss, by_epoch, rtol=1e-6)


def test_the_norm_before_clipping_is_what_the_trainer_logs(tmp_path):
    trainer = trainer_of(gpt2, tmp_path, max_grad_norm=0.1)
    callback = RecorderCallback(trainer, also=["unclipped_norm", "norms_by_parameter"])
    trainer.add_callback(callback)
    trainer.train()
    history = callback.history
    assert_allclose(history.unclipped_norm, logged(trainer, "grad_norm"), rtol=1e-6)
    assert_allclose(history.gradient_norm, 0.1, rtol=1e-4)
    assert {*history.parameter_names} == {name for name, _ in trainer.model.named_parameters()}


def test_an_epoch_that_is_cut_short_ends_there(tmp_path):
    trainer = trainer_of(gpt2, tmp_path, max_steps=6)
    callback = RecorderCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert callback.history.epochs()["n_steps"].tolist() == [4, 2]


def test_each_training_is_recorded_anew_and_a_history_continued_when_it_is_given(tmp_path):
    whole = trainer_of(gpt2, tmp_path, save_strategy="epoch", max_steps=12)
    callback = RecorderCallback(whole)
    whole.add_callback(callback)
    whole.train()
    resumed = trainer_of(gpt2, tmp_path, max_steps=12)
    callbacks = [
        RecorderCallback(resumed),
        RecorderCallback(resumed, history=callback.history[:2]),
    ]
    for added in callbacks:
        resumed.add_callback(added)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    own, continued = (added.history for added in callbacks)
    assert (own.n_steps, own.n_epochs) == (4, 1)
    assert continued.n_epochs == 3
    assert_array_equal(own.loss, callback.history.loss[8:])
    assert_array_equal(continued.loss, callback.history.loss)


def test_after_a_training_that_failed_the_next_one_is_recorded_anew(tmp_path):
    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise RuntimeError("broken")

    trainer = trainer_of(gpt2, tmp_path)
    callback = RecorderCallback(trainer)
    trainer.add_callback(callback)
    trainer.add_callback(Fails)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train()
    assert (callback.history.n_steps, callback.history.n_epochs) == (5, 1)
    trainer.remove_callback(Fails)
    trainer.train()
    assert (callback.history.n_steps, callback.history.n_epochs) == (12, 3)


def test_record_takes_the_optimizer_that_the_trainer_creates(tmp_path):
    trainer = trainer_of(gpt2, tmp_path)
    with record(trainer.create_optimizer()) as recorder:
        trainer.train()
    assert recorder.history.n_epochs == 3
    assert_array_equal(recorder.history.loss, logged(trainer, "loss"))


def test_the_example_of_the_callback_runs(tmp_path):
    trainer = trainer_of(gpt2, tmp_path)
    trainer.remove_callback(transformers.PrinterCallback)
    (example,) = doctest.DocTestFinder().find(RecorderCallback, globs={"trainer": trainer})[:1]
    assert example.examples
    report = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
