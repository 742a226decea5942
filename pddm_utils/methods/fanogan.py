"""f-AnoGAN: a GAN of healthy slices, and an encoder that finds a slice's place in it (Schlegl et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pddm_utils.methods.convolutional import LATENT_SIZE, dense_latent, from_dense_latent, make_decoder, make_encoder
from pddm_utils.methods.network_method import NetworkMethod, SliceBatch
from pddm_utils.training.loop import Phase

GRADIENT_PENALTY = 10.0  # lambda of WGAN-GP (Gulrajani et al. 2017)
CRITIC_STEPS = 5  # critic updates for one of the generator
FEATURE_WEIGHT = 1.0  # kappa


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor, fake: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Mean of `(norm(grad D(x)) - 1)^2` at points between real and generated slices (Gulrajani et al. 2017, eq. 3).

    Args:
        critic: from slices to scores `(B, 1)`.
        real, fake: `(B, 1, H, W)`.
        position: where between the two, `(B, 1, 1, 1)` in [0, 1].
    """
    between = (fake + position * (real - fake)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


class AdversarialNetworks(nn.Module):
    """Generator, critic and encoder as three children of one module, each updated in its turn.

    Args:
        size: `smoke`, `laptop`, `wide` or `paper`.
        image_size: height and width of a slice in pixels.
    """

    def __init__(self, size: str, image_size: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(from_dense_latent(size, image_size), make_decoder(size), nn.Tanh())
        self.critic = nn.ModuleDict({"features": make_encoder(size), "score": dense_latent(size, image_size, 1)})
        self.encoder = nn.Sequential(make_encoder(size), dense_latent(size, image_size, LATENT_SIZE))

    def score(self, slices: torch.Tensor) -> torch.Tensor:
        """The critic's scores, `(B, 1)`; high for what it takes for real."""
        return self.critic["score"](self.critic["features"](slices))


class FAnoGAN(NetworkMethod):
    """WGAN-GP in the first half of the steps, the encoder "izi_f" in the second (Schlegl et al. 2019).

    Critic: `D(G(z)) - D(x) + 10 (norm(grad D) - 1)^2`, each step; generator: `-D(G(z))`, every fifth step. Encoder:
    `mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2`, f the critic's last map, kappa 1. All with Adam at beta
    (0, 0.9) and a peak rate of 1e-4; without its first moment Adam is RMSprop with bias correction. Our networks are
    those of the autoencoders; the paper's are residual networks for patches of 64x64. Parameters at 96x96 (generator,
    critic and encoder; the critic is not kept): laptop 659,762, paper 2,181,954.
    """

    betas = (0.0, 0.9)
    peak_rate = 1e-4

    def make_network(self) -> AdversarialNetworks:
        """Untrained networks."""
        return AdversarialNetworks(self.settings.network, self.image_size)

    def phase(self, step: int, steps: int) -> Phase:
        """Critic and generator for the first half of the slices, then the encoder alone."""
        first = steps // 2
        if step >= first:
            return Phase(("encoder",), step - first, steps - first)
        generator_too = step % CRITIC_STEPS == CRITIC_STEPS - 1
        return Phase(("critic", "generator") if generator_too else ("critic",), step, first)

    def loss(self, network: AdversarialNetworks, batch: SliceBatch, part: str = "") -> torch.Tensor:
        """The loss of one part."""
        if part == "encoder":
            return self.encoder_loss(network, batch.clean)
        fake = network.generator(batch.normal(LATENT_SIZE))
        if part == "generator":
            return -network.score(fake).mean()
        fake = fake.detach()
        difference = network.score(fake).mean() - network.score(batch.clean).mean()
        penalty = gradient_penalty(network.score, batch.clean, fake, batch.uniform(1, 1, 1))
        return difference + GRADIENT_PENALTY * penalty

    @staticmethod
    def encoder_loss(network: AdversarialNetworks, slices: torch.Tensor) -> torch.Tensor:
        """Squared error of the slice and of the critic's features (Schlegl et al. 2019, the izi_f loss)."""
        rebuilt = network.generator(network.encoder(slices))
        features = network.critic["features"]
        distance = (features(rebuilt).float() - features(slices).float()).pow(2).mean()
        return (rebuilt.float() - slices).pow(2).mean() + FEATURE_WEIGHT * distance

    def validation_loss(self, network: AdversarialNetworks, batch: SliceBatch) -> torch.Tensor:
        """The encoder's loss, in both phases."""
        return self.encoder_loss(network, batch.clean)

    def kept(self, network: AdversarialNetworks) -> nn.Module:
        """Generator and encoder."""
        return nn.ModuleDict({"generator": network.generator, "encoder": network.encoder})

    def rebuild(
        self, network: AdversarialNetworks, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """`G(E(x))`."""
        return network.generator(network.encoder(slices))
