// Copying SQL, the viewer of examples, and following a run that is served. Texts reach the page as
// text alone (preact, textContent).
(function () {
  "use strict";
  const { h, render, Component } = preact;
  const live = document.documentElement.dataset.version !== "";
  const read = (id) => document.getElementById(id).textContent;
  const choices = JSON.parse(read("choices"));

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(text);
    const label = button.dataset.label || (button.dataset.label = button.textContent);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: copy with Ctrl-C";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });

  // Examples: from the file itself, or page by page from the server.
  let unpacked = null;
  async function unpack() {
    const bytes = Uint8Array.from(atob(read("packed")), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }
  async function examples(wanted, page, per) {
    if (live) {
      const answer = await fetch("examples?" + new URLSearchParams({ ...wanted, page }));
      if (!answer.ok) throw new Error(await answer.text());
      return answer.json();
    }
    unpacked = unpacked || await unpack();
    const rows = unpacked.filter((row) => Object.entries(wanted).every(([k, v]) => !v || row[k] === v));
    return { total: rows.length, rows: rows.slice(page * per, (page + 1) * per) };
  }

  function answer(row, name, text, correct, copied) {
    const how = row.error !== null && name !== "baseline" ? `no answer: ${row.error}`
      : correct ? "right" : copied !== null ? `wrong, copied from demonstration ${copied + 1}` : "wrong";
    return h("p", null, `${name}: `, h("b", null, text === null ? "" : text), " ",
      h("span", { class: correct ? "right" : "wrong" }, `(${how})`));
  }
  function example(row) {
    const seed = row.control_seed === null ? "" : `, seed ${row.control_seed}`;
    return h("article", null,
      h("h3", null, `${row.task}, ${row.shots} shot${row.shots === 1 ? "" : "s"}, example ${row.example}: ${row.flipped}`),
      h("p", null, `${row.model}, ${row.method === "none" ? "baseline" : row.method}${seed}`),
      h("ol", { "aria-label": "Demonstrations" }, row.demonstrations.map((text, i) => {
        const by = [row.baseline_copied === i && "baseline",
          row.copied === i && row.method !== "none" && row.method].filter(Boolean);
        const line = `${text} → ${row.answers[i]}`;
        return h("li", null, by.length ? h("mark", null, `${line} (copied by ${by.join(" and ")})`) : line);
      })),
      h("p", null, "asked: ", h("b", null, row.query), "; right answer: ", h("b", null, row.gold)),
      answer(row, "baseline", row.baseline_prediction, row.baseline_correct, row.baseline_copied),
      row.method === "none" ? null : answer(row, row.method, row.prediction, row.correct, row.copied));
  }

  class Viewer extends Component {
    constructor(props) {
      super(props);
      this.state = { wanted: {}, page: 0, total: 0, rows: [], problem: "" };
      this.asked = 0;
    }
    componentDidMount() { this.load({}, 0); }
    async load(wanted, page) {
      const asked = ++this.asked;
      this.setState({ wanted, page });
      try {
        const found = await examples(wanted, page, this.props.per);
        if (asked === this.asked) this.setState({ ...found, problem: "" });
      } catch (error) {
        this.setState({ problem: `Examples cannot be shown: ${error.message}` });
      }
    }
    render({ per }, { wanted, page, total, rows, problem }) {
      const last = Math.max(0, Math.ceil(total / per) - 1);
      const select = (name) => h("label", null, name, h("select", {
        name, onChange: (event) => this.load({ ...wanted, [name]: event.target.value }, 0),
      }, h("option", { value: "" }, "all"),
      choices[name].map((value) => h("option", { value }, value === "none" ? "baseline" : value))));
      const turn = (label, to) => h("button", {
        type: "button", disabled: to < 0 || to > last || to === page, onClick: () => this.load(wanted, to),
      }, label);
      return h("div", null,
        h("div", { class: "filters" }, Object.keys(choices).map(select)),
        h("div", { class: "pages" }, turn("First", 0), turn("Previous", page - 1),
          h("span", { role: "status" }, problem || `page ${page + 1} of ${last + 1}, ${total} examples`),
          turn("Next", page + 1), turn("Last", last)),
        rows.map(example));
    }
  }
  let viewer = null;
  const place = document.getElementById("viewer");
  render(h(Viewer, { per: Number(place.dataset.per), ref: (it) => { viewer = it; } }), place);

  // A page that is served follows its run: the results are taken anew when they have changed.
  async function follow() {
    let ended = false;
    try {
      const state = await (await fetch("state")).json();
      document.getElementById("state").textContent = state.text;
      ended = state.ended;
      if (state.version !== document.documentElement.dataset.version) {
        const fresh = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
        for (const id of ["sections", "results"])
          document.getElementById(id).replaceWith(document.adoptNode(fresh.getElementById(id)));
        document.documentElement.dataset.version = fresh.documentElement.dataset.version;
        enhanceSortableAccessibility(document.querySelectorAll(".sortable"));
        viewer.load(viewer.state.wanted, viewer.state.page);
        ended = false;
      }
    } catch (error) {
      document.getElementById("state").textContent = `The server does not answer (${error.message}).`;
    }
    if (!ended) setTimeout(follow, 5000);
  }
  if (live) follow();
})();
