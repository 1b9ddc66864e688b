// Runs last, in a script element within the drawing that it brings to life.

const host = document.currentScript.parentElement;
host.explorer = new GraphView(host);
