"""Comments as token ids: reading, WordPiece, disguised words, windows and batches. No torch."""
