"""Operations below attention: autograd functions around kernels in C, each with a slow twin in PyTorch."""
