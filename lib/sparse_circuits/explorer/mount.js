// Runs last, in a script element within the explorer that it brings to life.

const host = document.currentScript.parentElement;
host.explorer = new Explorer(host);
