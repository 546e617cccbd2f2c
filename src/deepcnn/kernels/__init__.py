"""Operations on tensors: tensors in, tensors out, without any module or network."""
