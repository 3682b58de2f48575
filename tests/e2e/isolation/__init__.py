"""Teams share one upstream key: nothing that one of them stored can be named by another."""
