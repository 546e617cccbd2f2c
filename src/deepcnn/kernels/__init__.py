"""Operations on tensors: tensors in, tensors out; no module and no network is known here."""
