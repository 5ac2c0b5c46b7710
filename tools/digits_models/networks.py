"""The four networks, in PyTorch.

The attribute names become the names of the ONNX nodes and weights.
"""

import torch
from torch import Tensor, nn

CLASSES = 10


class LeNet300(nn.Module):
    """LeNet-300-100: a perceptron with hidden layers of 300 and 100 units."""

    def __init__(self) -> None:
        """Creates the layers with random weights."""
        super().__init__()
        self.fc1 = nn.Linear(64, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, [N, 10]."""
        hidden = self.fc1(images.flatten(1)).relu()
        logits: Tensor = self.fc3(self.fc2(hidden).relu())
        return logits


class LeNet5(nn.Module):
    """LeNet-5 for 8x8 images: two convolutions with pooling, three Gemms."""

    def __init__(self) -> None:
        """Creates the layers with random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(128, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, [N, 10]."""
        features = self.pool(self.conv1(images).relu())
        features = self.pool(self.conv2(features).relu())
        hidden = self.fc1(features.flatten(1)).relu()
        logits: Tensor = self.fc3(self.fc2(hidden).relu())
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which a shortcut runs.

    The shortcut is the identity, or a 1x1 convolution with batch
    normalization where the block changes the shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """Creates the layers with random weights.

        Args:
            inputs: The number of input channels.
            outputs: The number of output channels.
            stride: The stride of the first convolution and the shortcut.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.resizes = stride != 1 or inputs != outputs
        if self.resizes:
            self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the block's output features."""
        branch = self.bn1(self.conv1(features)).relu()
        branch = self.bn2(self.conv2(branch))
        if self.resizes:
            features = self.shortcut_bn(self.shortcut_conv(features))
        total: Tensor = branch + features
        return total.relu()


class ResNet(nn.Module):
    """A residual network of four blocks, the third of them strided."""

    def __init__(self) -> None:
        """Creates the layers with random weights."""
        super().__init__()
        self.stem_conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.blocks = nn.ModuleDict(
            {
                "block1": ResidualBlock(16, 16),
                "block2": ResidualBlock(16, 16),
                "block3": ResidualBlock(16, 32, stride=2),
                "block4": ResidualBlock(32, 32),
            }
        )
        self.fc = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, [N, 10]."""
        features = self.stem_bn(self.stem_conv(images)).relu()
        for block in self.blocks.values():
            features = block(features)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


class EncoderLayer(nn.Module):
    """A pre-norm transformer encoder layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        """Creates the layers with random weights.

        Args:
            width: The number of features of a token.
            heads: The number of attention heads; it divides ``width``.
            hidden: The number of hidden features in the feed-forward part.
        """
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn1 = nn.Linear(width, hidden)
        self.ffn2 = nn.Linear(hidden, width)

    def attend(self, tokens: Tensor) -> Tensor:
        """Returns the multi-head self-attention of normalized tokens."""
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        context = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        attended: Tensor = self.out(context)
        return attended

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the layer's output tokens."""
        tokens = tokens + self.attend(self.norm1(tokens))
        hidden = nn.functional.gelu(self.ffn1(self.norm2(tokens)))
        output: Tensor = tokens + self.ffn2(hidden)
        return output


class Transformer(nn.Module):
    """A transformer encoder that reads an image as 8 rows of 8 pixels."""

    tokens = 8
    width = 64

    def __init__(self) -> None:
        """Creates the layers with random weights."""
        super().__init__()
        self.embed = nn.Linear(8, self.width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, self.width))
        self.layers = nn.ModuleDict({f"layer{i}": EncoderLayer(self.width, 4, 128) for i in (1, 2)})
        self.norm = nn.LayerNorm(self.width)
        self.head = nn.Linear(self.width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, [N, 10]."""
        tokens = self.embed(images.squeeze(1)) + self.position
        for layer in self.layers.values():
            tokens = layer(tokens)
        logits: Tensor = self.head(self.norm(tokens).mean(dim=1))
        return logits
