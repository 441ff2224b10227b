"""Models that return their loss, and loaders of mappings: surveyed without a wrapper."""

import contextlib
import functools
from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sgd_analysis import loss_gap, record, survey
from sgd_analysis.surveying.evaluation import FixedWeights
from tests.surveying.surveyed_models import (
    CLASS_WEIGHTS,
    assert_same,
    flat_gradient,
    plain_loop,
    small_batches,
)

N_TOKENS, IGNORED = 7, -100


class LanguageModel(nn.Module):
    """One that predicts each next token from the one before."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(N_TOKENS, 4), nn.Linear(4, N_TOKENS, bias=False)
        self.double()

    def logits(self, tokens):
        return self.head(torch.tanh(self.table(tokens)))

    def next_token_loss(self, tokens, labels):
        shifted = self.logits(tokens)[:, :-1].reshape(-1, N_TOKENS)
        return F.cross_entropy(shifted, labels[:, 1:].reshape(-1), ignore_index=IGNORED)


class ReturnsAnObject(LanguageModel):
    """As the models of transformers do."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        loss = None if labels is None else self.next_token_loss(input_ids, labels)
        return SimpleNamespace(loss=loss, logits=self.logits(input_ids))


class ReturnsAPair(LanguageModel):
    """As nanoGPT's does, whose targets are shifted already."""

    def forward(self, idx, targets=None):
        logits = self.logits(idx)
        loss = F.cross_entropy(logits.view(-1, N_TOKENS), targets.reshape(-1), ignore_index=-1)
        return logits, loss


def padded(lengths, n_padded):
    """A batch of sequences, with labels that ignore all beyond each one's length."""
    generator = torch.Generator().manual_seed(n_padded)
    tokens = torch.randint(N_TOKENS, (len(lengths), n_padded), generator=generator)
    is_real = torch.arange(n_padded) < torch.tensor(lengths)[:, None]
    return {
        "input_ids": tokens,
        "attention_mask": is_real.long(),
        "labels": tokens.where(is_real, torch.tensor(IGNORED)),
    }


PADDED = [padded([5, 2, 9], 9), padded([3, 2, 2], 4), padded([6], 6)]


def n_predicted(output, batch):
    return (batch["labels"][:, 1:] != IGNORED).sum()


def assert_mean_over(parts, n_parts, model, found):
    """Each batch's loss and gradient, and those of all, against the terms it is the mean of."""
    assert_array_equal(found.denominator, n_parts)
    sums = [sum(terms) for terms in parts]
    gradients = np.array([flat_gradient(total, model) for total in sums])
    values = np.array([total.item() for total in sums])
    assert_allclose(found.loss, values / n_parts, rtol=1e-10)
    each = gradients / np.array(n_parts)[:, None]
    assert_allclose(found.gradient, each, rtol=1e-10, atol=1e-14)
    assert_allclose(found.empirical_risk, values.sum() / sum(n_parts), rtol=1e-10)
    whole = gradients.sum(axis=0) / sum(n_parts)
    assert_allclose(found.full_gradient, whole, rtol=1e-10, atol=1e-14)


def terms_of(model, batch):
    """Of each token that is predicted and not ignored, what it costs, one by one."""
    for tokens, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        for now, after in zip(tokens, labels[1:], strict=False):
            if after != IGNORED:
                yield -torch.log_softmax(model.logits(now), dim=0)[after]


class TestAModelThatReturnsItsLoss:
    @pytest.mark.parametrize("kind", [dict, UserDict])
    def test_as_an_attribute_of_what_it_returns_of_a_mapping(self, kind):
        model = ReturnsAnObject()
        loader = [kind(batch) for batch in PADDED]
        found = survey(model, None, loader, n_samples=n_predicted)
        terms = [list(terms_of(model, batch)) for batch in PADDED]
        assert_mean_over(terms, [1 + 4 + 8, 1 + 1 + 2, 5], model, found)
        assert_array_equal(found.n_samples, [3, 3, 1])  # sequences

    def test_under_a_name_of_the_mapping_that_it_returns(self):
        class Mapping(ReturnsAnObject):
            def forward(self, **batch):
                return vars(super().forward(**batch))

        found = survey(Mapping(), None, PADDED, n_samples=n_predicted)
        assert_same(found, survey(ReturnsAnObject(), None, PADDED, n_samples=n_predicted))

    def test_in_a_tuple_with_what_it_predicts(self):
        model = ReturnsAPair()
        tokens = [batch["input_ids"] for batch in PADDED]
        loader = [[x[:, :-1], x[:, 1:]] for x in tokens]  # a list, as a DataLoader makes it
        found = survey(model, None, loader, n_samples=lambda _, batch: batch[1].numel())
        terms = [
            list(terms_of(model, {"input_ids": x, "labels": x.clone()}))  # none is ignored
            for x in tokens
        ]
        assert_mean_over(terms, [3 * 8, 3 * 3, 5], model, found)
        assert_array_equal(found.n_samples, [3, 3, 1])

    def test_as_one_number(self):
        class OneNumber(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs).square().sum(dim=1).mean()

        model = OneNumber(3, 2).double()
        loader = [torch.randn(n, 3, dtype=torch.float64) for n in (4, 1)]
        found = survey(model, None, loader, n_samples=lambda _, inputs: len(inputs))
        terms = [[nn.Linear.forward(model, row).square().sum() for row in rows] for rows in loader]
        assert_mean_over(terms, [4, 1], model, found)

    def test_as_several_losses_that_are_added_up(self):
        """As torchvision's detectors do, of a list of images and one of their boxes."""

        class Detector(nn.Linear):
            def forward(self, images, targets):
                found = torch.stack([super(Detector, self).forward(i.mean(dim=1)) for i in images])
                boxes = torch.stack([target["boxes"].mean(dim=0) for target in targets])
                errors = found - boxes
                return {"loss_box": errors.square().mean(), "loss_objectness": errors.abs().mean()}

        generator = torch.Generator().manual_seed(0)

        def batch(n):
            images = [torch.randn(3, 2 + i, generator=generator).double() for i in range(n)]
            boxes = [torch.randn(1 + i, 4, generator=generator).double() for i in range(n)]
            return tuple(images), tuple({"boxes": one} for one in boxes)

        model, loader = Detector(3, 4).double(), [batch(3), batch(1)]
        found = survey(model, None, loader, n_samples=lambda _, batch: len(batch[0]))
        one_by_one = [
            [sum(model([image], [target]).values()) for image, target in zip(*both, strict=True)]
            for both in loader
        ]
        assert_mean_over(one_by_one, [3, 1], model, found)
        assert_array_equal(found.n_samples, [3, 1])

    def test_of_a_batch_that_is_an_object_of_its_own(self):
        @dataclass
        class Graph:
            nodes: torch.Tensor

        class OfGraphs(nn.Linear):
            def forward(self, graph):
                return super().forward(graph.nodes).square().mean()

        model, nodes = OfGraphs(3, 1).double(), torch.randn(5, 3, dtype=torch.float64)
        found = survey(model, None, [Graph(nodes)], n_samples=lambda _, graph: len(graph.nodes))
        terms = [[nn.Linear.forward(model, row).square().sum() for row in nodes]]
        assert_mean_over(terms, [5], model, found)
        assert_array_equal(found.n_samples, [5])

    def test_of_a_pair_that_its_forward_takes_as_one(self):
        class OfPairs(nn.Linear):
            def forward(self, pair):
                return F.mse_loss(super().forward(pair[0]), pair[1])

        model = OfPairs(3, 1).double()
        loader = [(torch.ones(2, 3).double(), torch.zeros(2, 1).double())]
        found = survey(model, None, loader, n_samples=lambda _, pair: len(pair[1]))
        expected = survey(nn.Sequential(*[_as_linear(model)]), nn.MSELoss(), loader)
        assert_same(found, expected)

    def test_while_it_drops_out(self):
        class Drops(ReturnsAnObject):
            def logits(self, tokens):
                return super().logits(tokens) * F.dropout(torch.ones(()), 0.5, self.training)

        model = Drops()
        with pytest.raises(ValueError, match="draws random numbers"):
            survey(model, None, PADDED, n_samples=n_predicted)
        found = survey(model, None, PADDED, n_samples=n_predicted, draws=16)
        assert found.standard_error > 0
        silent = survey(model.eval(), None, PADDED, n_samples=n_predicted)
        assert_allclose(found.empirical_risk - found.noise, silent.empirical_risk, rtol=1e-12)

    def test_compiled(self):
        model = ReturnsAnObject()
        compiled = torch.compile(model, backend="eager")
        found = survey(compiled, None, PADDED, n_samples=n_predicted)
        assert_same(found, survey(model, None, PADDED, n_samples=n_predicted))

    @pytest.mark.parametrize("centred", [False, True])
    def test_whose_samples_may_change_each_others_loss(self, centred):
        class Centred(ReturnsAnObject):
            def logits(self, tokens):
                logits = super().logits(tokens)
                return logits - centred * logits.mean(dim=(0, 1))

        found = survey(Centred(), None, iter(PADDED), n_samples=n_predicted)
        assert found.couples == centred

    def test_leaves_no_trace(self):
        model = ReturnsAnObject()
        before = [p.clone() for p in model.parameters()]
        survey(model, None, PADDED, n_samples=n_predicted)
        assert all(p.grad is None for p in model.parameters())
        assert all(map(torch.equal, before, model.parameters()))


class TestSizesThatTheGraphOfTheLossTells:
    def test_tokens_that_are_not_ignored(self):
        found = survey(ReturnsAnObject(), None, PADDED)
        told = survey(ReturnsAnObject(), None, PADDED, n_samples=n_predicted)
        assert_same(found, told, rtol=0, atol=0)

    def test_of_a_batch_in_which_all_are_ignored(self):
        loader = [PADDED[0], padded([1, 1], 5), PADDED[1]]
        found, without = survey(ReturnsAnObject(), None, loader), survey_padded(PADDED[:2])
        assert_array_equal(found.denominator, [13, 0, 4])
        assert found.empirical_risk == without.empirical_risk

    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    @pytest.mark.parametrize(
        ("function", "module"),
        [
            (F.cross_entropy, nn.CrossEntropyLoss()),
            (
                functools.partial(F.cross_entropy, ignore_index=1, weight=CLASS_WEIGHTS),
                nn.CrossEntropyLoss(ignore_index=1, weight=CLASS_WEIGHTS),
            ),
            (
                functools.partial(F.cross_entropy, weight=CLASS_WEIGHTS, reduction="sum"),
                nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, reduction="sum"),
            ),
            (functools.partial(F.cross_entropy, label_smoothing=0.1), None),
            (F.mse_loss, nn.MSELoss()),
            (F.l1_loss, nn.L1Loss()),
            (functools.partial(F.mse_loss, reduction="sum"), nn.MSELoss(reduction="sum")),
            (lambda p, y: (p - y).square().mean(), nn.MSELoss()),
            (lambda p, y: F.mse_loss(p, y) + 0.1 * p.abs().mean(), None),
        ],
    )
    def test_a_function_is_surveyed_as_its_module_and_as_it_is_recorded(
        self, function, module, loop
    ):
        model, loader = nn.Linear(3, 3).double(), small_batches(batch_size=4)
        if "cross_entropy" in str(function):
            labels = torch.tensor([0, 1, 2, 2, 1])
            loader = [(x, labels.roll(b)[: len(x)]) for b, (x, _) in enumerate(loader)]
        with loop():
            found = survey(model, function, loader)
            if module is not None:
                assert_same(found, survey(model, module, loader))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with record(optimizer, steps_per_epoch=len(loader)) as recorder:
            for inputs, targets in loader:
                optimizer.zero_grad()
                function(model(inputs), targets).backward()
                optimizer.step()
        history = recorder.history[0]
        assert_allclose(found.denominator, history.denominator, rtol=1e-12)
        assert abs(loss_gap(history, found).drift) < 1e-12

    @pytest.mark.parametrize("is_plain", [True, False])
    def test_targets_that_are_not_changed_tell_them_of_many_batches_at_once(
        self, monkeypatch, is_plain
    ):
        n_alone, one = [], FixedWeights.one
        monkeypatch.setattr(FixedWeights, "one", lambda *a: n_alone.append(1) or one(*a))
        model = nn.Linear(3, 3).double()
        labels = torch.tensor([0, 1, 2, 2, 1])
        batches = enumerate(small_batches(batch_size=4))
        loader = [(x, labels.roll(b)[: len(x)]) for b, (x, _) in batches]

        def criterion(predictions, targets):
            kept = targets if is_plain else torch.where(targets == 0, -100, targets)
            return F.cross_entropy(predictions, kept)

        found = survey(model, criterion, loader)
        module = nn.CrossEntropyLoss(ignore_index=-100 if is_plain else 0)
        assert (len(n_alone) < 5) == is_plain
        assert_same(found, survey(model, module, loader))

    def test_a_loss_and_a_penalty_that_are_both_sums(self):
        """A variational autoencoder's, as it is often written."""

        class Encoder(nn.Linear):
            def forward(self, inputs):
                return super().forward(inputs).sigmoid(), self.bias

        def criterion(output, inputs):
            image, mean = output
            reconstruction = F.binary_cross_entropy(image, inputs, reduction="sum")
            return reconstruction + 0.5 * torch.sum(mean**2)

        model = Encoder(3, 3).double()
        loader = [torch.rand(n, 3, dtype=torch.float64) for n in (4, 1)]
        found = survey(model, criterion, loader)
        assert_array_equal(found.denominator, [12, 3])
        assert_array_equal(found.n_samples, [4, 1])
        total = sum(criterion(model(inputs), inputs) for inputs in loader)
        assert_allclose(found.empirical_risk, total.item() / 15, rtol=1e-12)
        gradient = flat_gradient(total, model) / 15
        assert_allclose(found.full_gradient, gradient, rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("loop", [plain_loop, contextlib.nullcontext])
    def test_they_are_refused_where_it_tells_them_of_some_batches_only(self, loop):
        def criterion(predictions, targets):
            errors = (predictions - targets).square()
            return errors.mean() if len(errors) > 2 else errors.sum() / 7

        model = nn.Linear(3, 3).double()
        with loop(), pytest.raises(ValueError, match="of some batches and not of others: give"):
            survey(model, criterion, small_batches())

    def test_they_must_be_told_where_it_does_not(self):
        class Scaled(ReturnsAnObject):
            def next_token_loss(self, tokens, labels):
                return (
                    super().next_token_loss(tokens, labels).logsumexp(0)
                )  # of one number: the same

        with pytest.raises(
            ValueError, match=r"the loss that the model returns does not say over.*"
        ):
            survey(Scaled(), None, PADDED)
        assert_same(survey(Scaled(), None, PADDED, n_samples=n_predicted), survey_padded(PADDED))


class TestMappingsWithACriterion:
    def test_it_is_given_the_output_and_the_whole_batch(self):
        def criterion(output, batch):
            shifted = output.logits[:, :-1].reshape(-1, N_TOKENS)
            return F.cross_entropy(shifted, batch["labels"][:, 1:].reshape(-1))

        model = ReturnsAnObject()
        found = survey(model, criterion, PADDED, n_samples=n_predicted)
        assert_same(found, survey(model, None, PADDED, n_samples=n_predicted))

    def test_of_a_pair_the_model_is_given_the_mapping_and_the_criterion_the_targets(self):
        class Two(nn.Linear):
            def forward(self, left, right):
                return super().forward(left + right)

        model, x = Two(3, 1).double(), torch.randn(2, 4, 3, dtype=torch.float64)
        targets = torch.ones(4, 1, dtype=torch.float64)
        loader = [({"left": part, "right": -2 * part}, targets) for part in x]
        found = survey(model, nn.MSELoss(), loader)
        plain = [(-part, targets) for part in x]
        assert_same(found, survey(_as_linear(model), nn.MSELoss(), plain))

    def test_a_tensor_is_a_batch(self):
        """An autoencoder's."""
        model = nn.Linear(3, 3).double()
        loader = [torch.randn(n, 3, dtype=torch.float64) for n in (4, 2)]
        found = survey(model, nn.MSELoss(), loader)
        assert_same(found, survey(model, nn.MSELoss(), [(x, x) for x in loader]), rtol=0, atol=0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("outputs", "got"),
        [
            (
                lambda loss: (loss, 2 * loss),
                r"got a tuple of a tensor of shape \(\), a tensor of shape \(\)",
            ),
            (lambda loss: [loss.detach(), "x"], r"got a list of a tensor of shape \(\), str"),
            (lambda loss: {"nll": loss, "kl": 1.0}, "got a mapping of 'nll', 'kl'"),
            (lambda loss: SimpleNamespace(loss=None), "got types.SimpleNamespace"),
        ],
    )
    def test_a_loss_that_cannot_be_told_from_what_else_there_is(self, outputs, got):
        class Unclear(nn.Linear):
            def forward(self, x):
                return outputs(super().forward(x).square().mean())

        model, inputs = Unclear(3, 1), torch.ones(2, 3)
        with pytest.raises(ValueError, match=rf"the model must return its loss.*{got}: give it"):
            survey(model, None, [inputs], n_samples=lambda *_: 2)

    def test_the_way_out_of_it(self):
        class TwoLosses(LanguageModel):
            def forward(self, x, y):
                loss = self.next_token_loss(x, y)
                return loss, 2 * loss

        loader = [(batch["input_ids"], batch["labels"]) for batch in PADDED]
        found = survey(
            TwoLosses(),
            lambda output, batch: output[0],
            ({"x": x, "y": y} for x, y in loader),
            n_samples=lambda _, batch: (batch["y"][:, 1:] != IGNORED).sum(),
        )
        assert_same(found, survey(ReturnsAnObject(), None, PADDED, n_samples=n_predicted))

    def test_vectors(self):
        class PerSample(nn.Linear):
            def forward(self, x):
                return super().forward(x).square().sum(dim=1)

        with pytest.raises(ValueError, match=r"with criterion=None the model must return one num"):
            survey(PerSample(3, 1), None, [torch.ones(2, 3)], n_samples=lambda *_: 2)

    def test_entries_that_the_forward_does_not_take(self):
        class Image(nn.Linear):
            def forward(self, image):
                return super().forward(image)

        loader = [{"image": torch.ones(2, 3), "label": torch.ones(2, 1)}]
        with pytest.raises(TypeError, match=r"mapping of 'image', 'label'.*forward takes \(image"):
            survey(Image(3, 1), lambda output, batch: output.mean(), loader)

    def test_a_triple_says_how_to_write_it(self):
        loader = [(torch.ones(2, 3), torch.ones(2), torch.ones(2, 1))]
        with pytest.raises(TypeError, match=r"got 3 items: write the several inputs"):
            survey(nn.Linear(3, 1), nn.MSELoss(), loader)


class TestTransformers:
    """Tiny random models of that library, against the mean over all tokens or samples."""

    def test_a_causal_language_model(self):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        config = transformers.GPT2Config(
            vocab_size=N_TOKENS, n_positions=9, n_embd=8, n_layer=1, n_head=2,
            bos_token_id=None, eos_token_id=None, loss_type="ForCausalLM",
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config).eval()
        loader = [transformers.BatchEncoding(batch) for batch in PADDED]
        found = survey(model, None, loader)
        assert_array_equal(found.denominator, [13, 4, 5])
        assert_array_equal(found.n_samples, [3, 3, 1])
        total = 0
        for batch in PADDED:
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            logarithms, labels = torch.log_softmax(logits, dim=-1)[:, :-1], batch["labels"][:, 1:]
            rows, columns = torch.nonzero(labels != IGNORED, as_tuple=True)
            total = total - logarithms[rows, columns, labels[rows, columns]].sum() / (13 + 4 + 5)
        assert_allclose(found.empirical_risk, total.item(), rtol=1e-6)  # float32
        gradient = flat_gradient(total, model)
        scale = np.abs(gradient).max()
        assert_allclose(found.full_gradient, gradient, rtol=1e-4, atol=1e-6 * scale)

    def test_a_classifier_that_drops_out(self):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        config = transformers.BertConfig(
            vocab_size=N_TOKENS, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=9, num_labels=3,
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
        labels = torch.tensor([0, 2, 1])
        loader = [
            {"input_ids": batch["input_ids"], "labels": labels[: len(batch["input_ids"])]}
            for batch in PADDED
        ]
        with pytest.raises(ValueError, match="draws random numbers"):
            survey(model, None, loader)
        found = survey(model, None, loader, draws=4)
        assert_array_equal(found.denominator, [3, 3, 1])
        assert found.standard_error > 0

        def criterion(output, batch):
            return F.cross_entropy(output.logits, batch["labels"])

        assert_same(survey(model, criterion, loader, draws=4), found, rtol=1e-5, atol=1e-7)


def survey_padded(loader):
    return survey(ReturnsAnObject(), None, loader, n_samples=n_predicted)


def _as_linear(model):
    linear = nn.Linear(model.in_features, model.out_features).to(model.weight.dtype)
    linear.load_state_dict(model.state_dict())
    return linear
