"""htdemucs as a PyTorch module whose core, between STFT and inverse STFT, can be called alone.

Needs torch and demucs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn

from heartvoice.config.presets import SeparatorConfig


class Hybrid(HTDemucs):  # type: ignore[misc]  # demucs has no types for mypy
    """One network; `core` takes and returns spectra, `forward` samples."""

    _input_spectrum: Tensor | None = None
    """Replaces the STFT while `core` runs."""
    _output_spectra: Tensor | None = None
    """Input of the inverse STFT, stored while `core` runs."""

    def core(self, mix: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Compute everything between STFT and inverse STFT. Not thread-safe.

        Args:
            mix: float32 [B, 2, L], one segment.
            spectrum: float32 [B, 4, F, T], the segment's STFT by `spectrum_of`.

        Returns:
            spectra float32 [B, S, 4, F, T] and waves float32 [B, S, 2, L].
        """
        self._input_spectrum = spectrum
        try:
            waves: Tensor = self(mix)
            spectra = self._output_spectra
        finally:
            self._input_spectrum = self._output_spectra = None
        if spectra is None:
            raise RuntimeError("demucs: expected one call of _mask in a forward pass, got none")
        return spectra, waves

    def spectrum_of(self, mix: Tensor) -> Tensor:
        """Return the STFT of [B, 2, L] in the network's layout, [B, 4, F, T]: left re, im, right re, im."""
        spectrum: Tensor = HTDemucs._magnitude(self, HTDemucs._spec(self, mix))
        return spectrum

    def _spec(self, x: Tensor) -> Tensor:
        transformed: Tensor = super()._spec(x) if self._input_spectrum is None else self._input_spectrum
        return transformed

    def _magnitude(self, z: Tensor) -> Tensor:
        magnitude: Tensor = super()._magnitude(z) if self._input_spectrum is None else z
        return magnitude

    def _mask(self, z: Tensor, m: Tensor) -> Tensor:
        if self._input_spectrum is not None:
            self._output_spectra = m
            return m
        masked: Tensor = super()._mask(z, m)
        return masked

    def _ispec(self, z: Tensor, length: int | None = None, scale: int = 0) -> Tensor:
        if self._input_spectrum is not None:
            return z.new_zeros(())  # added to the waves
        samples: Tensor = super()._ispec(z, length, scale)
        return samples


class Separator(nn.Module):
    """The networks of a bag; network i of several separates source i."""

    def __init__(self, sizes: SeparatorConfig, arguments: Mapping[str, Any]) -> None:
        """Build the networks on torch's default device; `arguments` are those of `HTDemucs` for these sizes."""
        super().__init__()
        self.sizes = sizes
        # They affect initial weights only, which are unused here.
        arguments = {**arguments, "rescale": 0, "emb_smooth": False}
        self.models = nn.ModuleList([Hybrid(**arguments) for _ in range(sizes.n_models)])

    def spectrum_of(self, mix: Tensor) -> Tensor:
        """See `Hybrid.spectrum_of`."""
        return self._network(0).spectrum_of(mix)

    def core(self, mix: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the graph's outputs; see `Hybrid.core`."""
        results = [self._network(index).core(mix, spectrum) for index in range(self.sizes.n_models)]
        if len(results) == 1:
            return results[0]
        spectra = torch.stack([result[0][:, source] for source, result in enumerate(results)], dim=1)
        waves = torch.stack([result[1][:, source] for source, result in enumerate(results)], dim=1)
        return spectra, waves

    @torch.inference_mode()
    def separate(self, mix: Tensor) -> Tensor:
        """Apply the package's `apply_model` with shifts 0: mix [B, 2, N] to stems [B, S, 2, N]."""
        count = self.sizes.n_models
        weights = torch.eye(count).tolist() if count > 1 else None
        bag = BagOfModels(list(self.models), weights)
        stems: Tensor = apply_model(bag, mix, shifts=0, overlap=self.sizes.overlap)
        return stems

    def _network(self, index: int) -> Hybrid:
        return cast("Hybrid", self.models[index])
