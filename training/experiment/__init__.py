"""What experiments share: cells that go on after a kill, and the page they end in."""
