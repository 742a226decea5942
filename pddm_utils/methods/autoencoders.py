"""AE, VAE and spatial VAE: rebuild a slice through a bottleneck that only healthy anatomy fits through."""

from __future__ import annotations

import torch
from torch import nn

from pddm_utils.methods.convolutional import (
    CHANNELS,
    LATENT_SIZE,
    dense_latent,
    from_dense_latent,
    make_decoder,
    make_encoder,
)
from pddm_utils.methods.network_method import NetworkMethod, SliceBatch


def kl_to_standard_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """`KL(N(mean, exp(log_variance)) || N(0, 1))`, summed over each sample's latent (Kingma and Welling 2014, app. B).

    Args:
        mean, log_variance: `(B, ...)`.

    Returns:
        `(B,)`, nats.
    """
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


class Autoencoder(nn.Module):
    """Encoder, latent, decoder.

    Args:
        size: `smoke`, `laptop`, `wide` or `paper`.
        image_size: height and width of a slice in pixels.
        variational: the latent is a normal distribution: twice the outputs, mean and log variance.
        spatial: the latent is a map at the encoder's last resolution, not a vector.
    """

    def __init__(self, size: str, image_size: int, variational: bool, spatial: bool) -> None:
        super().__init__()
        self.variational, width = variational, CHANNELS[size][-1]
        copies = 2 if variational else 1
        self.to_latent: nn.Module
        self.from_latent: nn.Module
        self.encoder, self.decoder = make_encoder(size), make_decoder(size)
        if spatial:
            self.to_latent, self.from_latent = nn.Conv2d(width, copies * width, 1), nn.Conv2d(width, width, 1)
        else:
            self.to_latent = dense_latent(size, image_size, copies * LATENT_SIZE)
            self.from_latent = from_dense_latent(size, image_size)

    def encode(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the latent, `(B, LATENT_SIZE)` or maps; the log variance of an AE is empty."""
        latent = self.to_latent(self.encoder(slices))
        mean, log_variance = latent.chunk(2, dim=1) if self.variational else (latent, latent[:, :0])
        return mean, log_variance

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Slices `(B, 1, H, W)`."""
        return self.decoder(self.from_latent(latent))


class AE(NetworkMethod):
    """AE: mean absolute error of the reconstruction through a dense latent of 128 values (Baur et al. 2021).

    Parameters at 96x96: laptop 490,817, paper 1,511,857.
    """

    variational = False
    spatial = False

    def make_network(self) -> Autoencoder:
        """An untrained autoencoder."""
        return Autoencoder(self.settings.network, self.image_size, self.variational, self.spatial)

    def loss(self, network: Autoencoder, batch: SliceBatch, part: str = "") -> torch.Tensor:
        """Negative evidence lower bound with a Laplace likelihood of scale 1, per pixel; plain L1 for an AE."""
        mean, log_variance = network.encode(batch.clean)
        latent, divergence = mean.float(), torch.zeros(len(mean), device=mean.device)
        if self.variational:
            log_variance = log_variance.float()
            divergence = kl_to_standard_normal(latent, log_variance)
            latent = latent + (0.5 * log_variance).exp() * batch.normal(*mean.shape[1:])
        error = (network.decode(latent).float() - batch.clean).abs().flatten(1)
        return (error.sum(1) + divergence).mean() / error.shape[1]

    def rebuild(
        self, network: Autoencoder, slices: torch.Tensor, timestep: int | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Decode the latent's mean."""
        return network.decode(network.encode(slices)[0])


class VAE(AE):
    """VAE: `L1(x, x^) + KL(q(z) || N(0, 1))`, weight 1 (Kingma and Welling 2014, eq. 10; Baur et al. 2021).

    Parameters at 96x96: laptop 564,673, paper 1,585,713.
    """

    variational = True


class SpatialVAE(VAE):
    """SVAE: the same loss with a latent map, 6x6 at 96x96, which keeps where things are (Baur et al. 2021).

    Parameters at 96x96: laptop 353,009, paper 1,408,993.
    """

    spatial = True
