"""Loops over sequences: language models, time series, translation."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

WORDS = 11


class RecurrentModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(WORDS, 6), nn.LSTM(6, 7)
        self.dropout, self.decoder = nn.Dropout(0.2), nn.Linear(7, WORDS)

    def forward(self, tokens, state):
        output, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return self.decoder(self.dropout(output)).view(-1, WORDS), state


class Transformer(nn.Module):
    """A decoder in small that returns its loss, too."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(WORDS, 8), nn.Embedding(6, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, WORDS, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens, targets=None):
        n = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        hidden = self.block(self.tokens(tokens) + self.positions(torch.arange(n)), mask)
        logits = self.head(hidden)
        if targets is None:
            return logits, None
        flat = logits.view(-1, WORDS), targets.view(-1)
        return logits, F.cross_entropy(*flat, ignore_index=-1)


def word_language_model(script):
    """Truncated backpropagation: the state goes on, its graph does not; gradients are clipped."""
    model, criterion = RecurrentModel(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    text = torch.randint(WORDS, (23, 4))  # four columns of text, side by side
    with script.record(optimizer) as step:
        for _ in range(2):
            state = (torch.zeros(1, 4, 7), torch.zeros(1, 4, 7))
            for start in range(0, len(text) - 1, 5):
                end = min(start + 5, len(text) - 1)
                optimizer.zero_grad()
                state = tuple(part.detach() for part in state)
                output, state = model(text[start:end], state)
                loss = criterion(output, text[start + 1 : end + 1].reshape(-1))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.25)
                optimizer.step()
                step(loss, 4, 4 * (end - start))
    return model


def nanogpt(script):
    """Batches without a loader, accumulated over micro-steps; a scaler that is off; a schedule."""
    model, data = Transformer(), torch.randint(WORDS, (80,))
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def get_batch():
        starts = torch.randint(len(data) - 6, (3,))
        return (torch.stack([data[s + k : s + k + 6] for s in starts]) for k in (0, 1))

    with script.record(optimizer) as step:
        x, y = get_batch()
        for i in range(6):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * i / 6))
            losses = []
            for _ in range(4):
                _, loss = model(x, y)
                loss = loss / 4
                losses.append(loss)
                x, y = get_batch()
                scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            step(losses, 4 * 3, 4 * 3 * 6)
            optimizer.zero_grad(set_to_none=True)
    return model


def mingpt(script):
    """One loader with a sampler that never ends, its iterator made anew when it does."""
    model, data = Transformer(), torch.randint(WORDS, (40,))
    windows = [(data[s : s + 5], data[s + 1 : s + 6]) for s in range(30)]
    sampler = RandomSampler(windows, replacement=True, num_samples=20)
    batches = DataLoader(windows, sampler=sampler, batch_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with script.record(optimizer) as step:
        it = iter(batches)
        for _ in range(7):
            try:
                batch = next(it)
            except StopIteration:
                it = iter(batches)
                batch = next(it)
            _, loss = model(*batch)
            model.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step(loss, len(batch[1]), batch[1].numel())
    return model


def masked_language_model(script):
    """Only the hidden tokens are asked for; the other targets are ignored."""
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with script.record(optimizer) as step:
        for tokens in DataLoader(torch.randint(1, WORDS, (20, 6)), 5, shuffle=True):
            hidden = torch.rand(tokens.shape) < 0.3
            hidden[0, 0] = True
            logits, _ = model(tokens.masked_fill(hidden, 0))
            loss = F.cross_entropy(logits.transpose(1, 2), tokens.masked_fill(~hidden, -100))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step(loss, len(tokens), int(hidden.sum()))
    return model


def translation(script):
    """An encoder and a decoder with an optimizer each, and one loss that both descend."""
    encoder, decoder = nn.GRU(6, 7, batch_first=True), nn.GRU(6, 7, batch_first=True)
    embedding, head, criterion = nn.Embedding(WORDS, 6), nn.Linear(7, WORDS), nn.NLLLoss()
    of_encoder = torch.optim.Adam([*encoder.parameters(), *embedding.parameters()], lr=1e-2)
    of_decoder = torch.optim.Adam([*decoder.parameters(), *head.parameters()], lr=1e-2)
    pairs = DataLoader([(t, t.flip(0)) for t in torch.randint(WORDS, (14, 4))], 4)
    with script.record(of_encoder) as step_of_encoder, script.record(of_decoder) as step_of_decoder:
        for _ in range(2):
            for source, target in pairs:
                of_encoder.zero_grad()
                of_decoder.zero_grad()
                _, state = encoder(embedding(source))
                output, _ = decoder(embedding(target.roll(1, dims=1)), state)
                output = F.log_softmax(head(output), dim=-1)
                loss = criterion(output.view(-1, WORDS), target.view(-1))
                loss.backward()
                of_encoder.step()
                of_decoder.step()
                step_of_encoder(loss, len(target), target.numel())
                step_of_decoder(loss, len(target), target.numel())
    return encoder, decoder, embedding, head


def speech(script):
    """Sequences of different lengths, aligned by the loss itself."""
    model = nn.Linear(5, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for sounds, targets in DataLoader(
            [(torch.randn(9, 5), torch.randint(1, 4, (3,))) for _ in range(10)], 4
        ):
            n = len(sounds)
            output = model(sounds).log_softmax(2).transpose(0, 1)
            lengths = torch.full((n,), 9), torch.full((n,), 3)
            loss = F.ctc_loss(output, targets, *lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step(loss, n)
    return model


def time_series(script):
    """Waves that go on, by LBFGS in double precision; a step evaluates its closure many times."""
    waves = torch.sin(torch.arange(20.0)[None] / 3 + torch.rand(5, 1) * 6).double()
    cell, head = nn.LSTMCell(1, 5).double(), nn.Linear(5, 1).double()
    parameters = [*cell.parameters(), *head.parameters()]
    optimizer = torch.optim.LBFGS(parameters, lr=0.8, max_iter=5)

    def predicted(inputs):
        state, outputs = None, []
        for value in inputs.split(1, dim=1):
            state = cell(value, state)
            outputs.append(head(state[0]))
        return torch.cat(outputs, dim=1)

    with script.record(optimizer) as step:
        for _ in range(4):
            losses = []

            def closure(losses=losses):
                optimizer.zero_grad()
                loss = F.mse_loss(predicted(waves[:, :-1]), waves[:, 1:])
                losses.append(loss)
                loss.backward()
                step.look()
                return loss

            optimizer.step(closure)
            step(losses[0], len(waves), waves[:, 1:].numel())
            with torch.no_grad():
                F.mse_loss(predicted(waves[:2, :-1]), waves[:2, 1:]).item()
    return cell, head


LOOPS = (
    word_language_model,
    nanogpt,
    mingpt,
    masked_language_model,
    translation,
    speech,
    time_series,
)
