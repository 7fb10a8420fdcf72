"""htdemucs as a PyTorch module whose middle can be called alone. Needs torch and demucs."""

from __future__ import annotations

import torch
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn

from heartvoice.config.presets import SeparatorConfig
from heartvoice.models.demucs import module_kwargs


class Hybrid(HTDemucs):  # type: ignore[misc]  # demucs has no types for mypy
    """One network; `core` takes and gives spectra where `forward` transforms by itself."""

    _given: Tensor | None = None
    """Spectrum that stands for the STFT while `core` runs."""
    _kept: Tensor | None = None
    """What would go into the inverse STFT."""

    def core(self, mix: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """What lies between STFT and inverse STFT. Not for several threads at once.

        Args:
            mix: float32 [B, 2, L], one segment.
            spectrum: float32 [B, 4, F, T], its STFT by `spectrum_of`.

        Returns:
            spectra float32 [B, S, 4, F, T] and waves float32 [B, S, 2, L].
        """
        self._given = spectrum
        try:
            waves = self(mix)
            spectra = self._kept
        finally:
            self._given = self._kept = None
        assert isinstance(waves, Tensor)
        assert spectra is not None
        return spectra, waves

    def spectrum_of(self, mix: Tensor) -> Tensor:
        """The STFT of [B, 2, L] as the network reads it, [B, 4, F, T]: left re, im, right re, im."""
        spectrum: Tensor = HTDemucs._magnitude(self, HTDemucs._spec(self, mix))
        return spectrum

    def _spec(self, x: Tensor) -> Tensor:
        transformed: Tensor = super()._spec(x) if self._given is None else self._given
        return transformed

    def _magnitude(self, z: Tensor) -> Tensor:
        magnitude: Tensor = super()._magnitude(z) if self._given is None else z
        return magnitude

    def _mask(self, z: Tensor, m: Tensor) -> Tensor:
        if self._given is not None:
            self._kept = m
            return m
        masked: Tensor = super()._mask(z, m)
        return masked

    def _ispec(self, z: Tensor, length: int | None = None, scale: int = 0) -> Tensor:
        if self._given is not None:
            return z.new_zeros(())  # what is added to the waves
        samples: Tensor = super()._ispec(z, length, scale)
        return samples


class Separator(nn.Module):
    """The networks of a bag: network i of several is there for source i."""

    def __init__(self, sizes: SeparatorConfig) -> None:
        """Build them on torch's current device."""
        super().__init__()
        self.sizes = sizes
        kwargs = module_kwargs(sizes) | {"rescale": 0}  # of first weights, which are never used here
        self.models = nn.ModuleList([Hybrid(**kwargs) for _ in range(sizes.n_models)])

    def spectrum_of(self, mix: Tensor) -> Tensor:
        """See `Hybrid.spectrum_of`."""
        return self._network(0).spectrum_of(mix)

    def core(self, mix: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """What the graph computes; see `Hybrid.core`."""
        results = [self._network(index).core(mix, spectrum) for index in range(self.sizes.n_models)]
        if len(results) == 1:
            return results[0]
        spectra = torch.stack([result[0][:, source] for source, result in enumerate(results)], dim=1)
        waves = torch.stack([result[1][:, source] for source, result in enumerate(results)], dim=1)
        return spectra, waves

    @torch.inference_mode()
    def separate(self, mix: Tensor) -> Tensor:
        """The package's `apply_model` with shifts 0: mix [B, 2, N] to stems [B, S, 2, N]."""
        count = self.sizes.n_models
        weights = torch.eye(count).tolist() if count > 1 else None
        bag = BagOfModels(list(self.models), weights)
        stems: Tensor = apply_model(bag, mix, shifts=0, overlap=self.sizes.overlap)
        return stems

    def _network(self, index: int) -> Hybrid:
        network = self.models[index]
        assert isinstance(network, Hybrid)
        return network
