// A page that is opened from disk may not start a Worker, which the search is. Its script runs in a hidden
// frame in place of that, and takes and gives messages as a Worker does.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(script) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => setTimeout(() => this.onmessage && this.onmessage({ data }));
      const element = inner.document.createElement("script");
      element.src = script;
      element.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      element.onerror = (error) => this.onerror && this.onerror(error);
      inner.document.body.append(element);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else setTimeout(() => this.frame.contentWindow.onmessage({ data }));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
