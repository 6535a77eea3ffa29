"""How a GAN is trained, kept and gone on with; papers build on it."""
