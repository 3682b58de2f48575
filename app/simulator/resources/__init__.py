"""The rest of the provider's API: files, batches, media, and other objects that it keeps."""
