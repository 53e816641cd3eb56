// A table or code box that is wider than its place scrolls; make it reachable by keyboard, and only then.
(function () {
  function mark() {
    document.querySelectorAll(".pst-scrollable-table-container, .cell_output .output, mjx-container[display='true']").forEach(function (box) {
      if (box.scrollWidth > box.clientWidth) {
        box.tabIndex = 0;
        box.setAttribute("role", "region");
        if (!box.hasAttribute("aria-label")) box.setAttribute("aria-label", "Wider than the page: scrolls sideways");
      } else {
        box.removeAttribute("tabindex");
        box.removeAttribute("role");
      }
    });
  }
  window.addEventListener("load", mark);
  window.addEventListener("resize", mark);
})();
