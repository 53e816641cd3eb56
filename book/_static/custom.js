(function () {
  // A table or output that is wider than its place scrolls; make it reachable by keyboard, and only then.
  function mark() {
    document.querySelectorAll(".pst-scrollable-table-container, .cell_output .output, .wide-picture").forEach(function (box) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", "Wider than the page: scrolls sideways");
      } else {
        ["tabindex", "role", "aria-label"].forEach(function (name) { box.removeAttribute(name); });
      }
    });
  }
  window.addEventListener("load", mark);
  window.addEventListener("resize", mark);

  // The theme puts the logo outside every landmark.
  document.addEventListener("DOMContentLoaded", function () {
    var logo = document.querySelector(".sidebar-primary-item > .navbar-brand");
    if (!logo) return;
    logo.parentElement.setAttribute("role", "navigation");
    logo.parentElement.setAttribute("aria-label", "Front page");
  });
})();

// Paper is white, whatever the reader's scheme.
(function () {
  let scheme = null;
  window.addEventListener("beforeprint", () => {
    scheme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    document.querySelectorAll("img[loading=lazy]").forEach((image) => { image.loading = "eager"; });
  });
  window.addEventListener("afterprint", () => { document.documentElement.dataset.theme = scheme; });
})();
