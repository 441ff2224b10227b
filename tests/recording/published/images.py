"""Loops over images: classifiers, generators, detectors, metric learning."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader(*tensors, batch_size=6, **settings):
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size, shuffle=True, **settings)


def digits(n=20, **settings):
    return loader(torch.rand(n, 1, 8, 8), torch.randint(4, (n,)), **settings)


def convnet(n_classes=4):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(27, n_classes),
    )  # fmt: skip


def mnist(script):
    """A convnet with `F.nll_loss`, a scheduler, and a test loop after each epoch."""
    train_loader, test_loader = digits(), digits(10)
    model = nn.Sequential(convnet(), nn.LogSoftmax(1))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    with script.record(optimizer) as step:
        for _ in range(3):
            model.train()
            for data, target in train_loader:
                optimizer.zero_grad()
                loss = F.nll_loss(model(data), target)
                loss.backward()
                optimizer.step()
                step(loss, len(data))
            model.eval()
            with torch.no_grad():
                for data, target in test_loader:
                    F.nll_loss(model(data), target, reduction="sum").item()
            scheduler.step()
    return model


def imagenet(script):
    """A criterion module, batch norm, momentum, weight decay, and accuracies on the way."""
    train_loader, criterion = digits(n=18), nn.CrossEntropyLoss()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, target in train_loader:
                output = model(images)
                loss = criterion(output, target)
                (output.argmax(1) == target).float().mean().item()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step(loss, len(images))
    return model


def label_smoothing_and_averaged_weights(script):
    """A recipe for classifiers: smoothed labels, clipping, a moving average of the weights."""
    model, train_loader = convnet(), digits()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, target in train_loader:
                loss = F.cross_entropy(model(images), target, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                step(loss, len(images))
                averaged.update_parameters(model)
    return model, averaged


def mixup(script):
    """Each image is blended with another one, and so are the losses of their labels."""
    model, train_loader, criterion = convnet(), digits(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, target in train_loader:
                share = torch.distributions.Beta(1.0, 1.0).sample().item()
                other = torch.randperm(len(images))
                output = model(share * images + (1 - share) * images[other])
                loss = share * criterion(output, target)
                loss = loss + (1 - share) * criterion(output, target[other])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step(loss, len(images))
    return model


def distillation(script):
    """A student of a teacher: a divergence between softened outputs, and the labels' loss."""
    teacher, student, train_loader = convnet().eval(), convnet(), digits()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for images, target in train_loader:
            with torch.no_grad():
                soft = F.softmax(teacher(images) / 2, dim=1)
            output = student(images)
            of_teacher = F.kl_div(F.log_softmax(output / 2, dim=1), soft, reduction="batchmean")
            loss = 0.3 * F.cross_entropy(output, target) + 0.7 * 4 * of_teacher
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step(loss, len(images))
    return student


def variational_autoencoder(script):
    """Summed cross-entropy of the pixels, plus the divergence of the code."""
    train_loader = digits()
    encoder, decoder = nn.Linear(64, 2 * 3), nn.Linear(3, 64)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    with script.record(optimizer) as step:
        for _ in range(2):
            for data, _ in train_loader:
                optimizer.zero_grad()
                mean, log_variance = encoder(data.flatten(1)).chunk(2, dim=1)
                code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
                seen = torch.sigmoid(decoder(code))
                of_pixels = F.binary_cross_entropy(seen, data.flatten(1), reduction="sum")
                of_code = -0.5 * torch.sum(1 + log_variance - mean**2 - log_variance.exp())
                loss = of_pixels + of_code
                loss.backward()
                optimizer.step()
                step(loss, len(data), data.numel())
    return encoder, decoder


def dcgan(script):
    """Two optimizers; real and fake images have a backward pass each, and labels as a tensor."""
    generator, criterion = nn.Sequential(nn.Linear(3, 64), nn.Tanh()), nn.BCELoss()
    discriminator = nn.Sequential(
        nn.Linear(64, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Sigmoid()
    )
    of_d = torch.optim.Adam(discriminator.parameters(), lr=2e-2, betas=(0.5, 0.999))
    of_g = torch.optim.Adam(generator.parameters(), lr=2e-2, betas=(0.5, 0.999))
    with script.record(of_d) as step_of_d, script.record(of_g) as step_of_g:
        for _ in range(2):
            for real, _ in digits():
                discriminator.zero_grad()
                label = torch.full((len(real),), 1.0)
                on_real = criterion(discriminator(real.flatten(1)).view(-1), label)
                on_real.backward()
                fake = generator(torch.randn(len(real), 3))
                label.fill_(0.0)
                on_fake = criterion(discriminator(fake.detach()).view(-1), label)
                on_fake.backward()
                of_d.step()
                step_of_d([on_real, on_fake], 2 * len(real))
                generator.zero_grad()
                label.fill_(1.0)
                loss = criterion(discriminator(fake).view(-1), label)
                loss.backward()
                of_g.step()
                step_of_g(loss, len(real))
    return generator, discriminator


def wasserstein_with_gradient_penalty(script):
    """A critic that makes several steps for one of the generator, with a penalty on its slope."""
    generator, critic = (
        nn.Linear(3, 64),
        nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1)),
    )
    of_c = torch.optim.Adam(critic.parameters(), lr=1e-2, betas=(0.0, 0.9))
    of_g = torch.optim.Adam(generator.parameters(), lr=1e-2, betas=(0.0, 0.9))
    with script.record(of_c) as step_of_c, script.record(of_g) as step_of_g:
        for i, (real, _) in enumerate(digits(n=36)):
            real = real.flatten(1)
            of_c.zero_grad()
            fake = generator(torch.randn(len(real), 3)).detach()
            share = torch.rand(len(real), 1)
            between = (share * real + (1 - share) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
            loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
            loss.backward()
            of_c.step()
            step_of_c(loss, len(real))
            if i % 3 == 2:
                of_g.zero_grad()
                loss = -critic(generator(torch.randn(len(real), 3))).mean()
                loss.backward()
                of_g.step()
                step_of_g(loss, len(real))
    return generator, critic


def denoising_diffusion(script):
    """The noise is what the model has to find, at a random time."""
    model, noise_left = nn.Linear(65, 64), torch.linspace(0.99, 0.1, 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, _ in digits():
                images, times = images.flatten(1), torch.randint(10, (len(images), 1))
                noise, kept = torch.randn_like(images), noise_left[times]
                noisy = kept.sqrt() * images + (1 - kept).sqrt() * noise
                loss = F.mse_loss(model(torch.cat([noisy, times / 10], 1)), noise)
                loss.backward()
                optimizer.step()
                step(loss, len(images), images.numel())
                optimizer.zero_grad()
    return model


def siamese(script):
    """Pairs of images, one network, one probability that both show the same."""
    body, head = nn.Linear(64, 5), nn.Sequential(nn.Linear(10, 1), nn.Sigmoid())
    optimizer = torch.optim.Adadelta([*body.parameters(), *head.parameters()], lr=1.0)
    pairs = loader(torch.rand(20, 64), torch.rand(20, 64), torch.randint(2, (20,)).float())
    with script.record(optimizer) as step:
        for _ in range(2):
            for one, other, same in pairs:
                optimizer.zero_grad()
                output = head(torch.cat([body(one), body(other)], dim=1)).squeeze(1)
                loss = F.binary_cross_entropy(output, same)
                loss.backward()
                optimizer.step()
                step(loss, len(one))
    return body, head


def triplets(script):
    """An anchor, a positive and a negative image."""
    model, batches = nn.Linear(64, 5), loader(torch.rand(20, 3, 64))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with script.record(optimizer) as step:
        for (images,) in batches:
            optimizer.zero_grad()
            anchor, positive, negative = model(images).unbind(1)
            loss = F.triplet_margin_loss(anchor, positive, negative, margin=1.0)
            loss.backward()
            optimizer.step()
            step(loss, len(images))
    return model


def contrastive(script):
    """Two views of each image: each has to find its other one in the batch."""
    model, train_loader = nn.Linear(64, 5), digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with script.record(optimizer) as step:
        for images, _ in train_loader:
            views = torch.cat([images, images + 0.1 * torch.randn_like(images)]).flatten(1)
            codes = F.normalize(model(views), dim=1)
            likeness = codes @ codes.T / 0.5
            likeness.fill_diagonal_(-1e9)
            loss = F.cross_entropy(likeness, torch.arange(len(views)).roll(len(images)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step(loss, len(views))
    return model


class Detector(nn.Module):
    """Gives its losses while it trains, as detectors do."""

    def __init__(self):
        super().__init__()
        self.boxes, self.classes = nn.Linear(64, 4), nn.Linear(64, 3)

    def forward(self, images, targets):
        seen = torch.stack(images).flatten(1)
        boxes, labels = (torch.stack([t[name] for t in targets]) for name in ("boxes", "labels"))
        return {
            "loss_classifier": F.cross_entropy(self.classes(seen), labels),
            "loss_box_reg": F.smooth_l1_loss(self.boxes(seen), boxes, reduction="sum")
            / len(images),
        }


def separated(batch):
    return tuple(zip(*batch, strict=True))


def detection(script):
    """The model returns a dict of losses, the loop adds them up; batches are lists of dicts."""
    model = Detector()
    samples = [
        (torch.rand(1, 8, 8), {"boxes": torch.rand(4), "labels": torch.randint(3, ())})
        for _ in range(10)
    ]
    batches = DataLoader(samples, 4, shuffle=True, collate_fn=separated)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    with script.record(optimizer) as step:
        for _ in range(2):
            for images, targets in batches:
                losses = sum(model(images, targets).values())
                optimizer.zero_grad()
                losses.backward()
                optimizer.step()
                step(losses, len(images))
    return model


def sharpness_aware(script):
    """The gradient is taken at the worst place near by: of two passes the second counts."""
    model, train_loader = convnet(), digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with script.record(optimizer) as step:
        for images, target in train_loader:
            F.cross_entropy(model(images), target).backward()
            weights = copy.deepcopy(model.state_dict())
            with torch.no_grad():
                norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
                for p in model.parameters():
                    p.add_(p.grad * (0.05 / (norm + 1e-12)))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), target)
            loss.backward()
            model.load_state_dict(weights)
            optimizer.step()
            step(loss, len(images))
            optimizer.zero_grad()
    return model


LOOPS = (
    mnist,
    imagenet,
    label_smoothing_and_averaged_weights,
    mixup,
    distillation,
    variational_autoencoder,
    dcgan,
    wasserstein_with_gradient_penalty,
    denoising_diffusion,
    siamese,
    triplets,
    contrastive,
    detection,
    sharpness_aware,
)
