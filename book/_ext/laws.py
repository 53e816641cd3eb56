"""Print what ``minitransformer.laws`` says of a form, so that the book and the code cannot differ.

```` ```{form} chinchilla ````
    its parameters with unit and meaning, its papers, and where it can hold. ``:x: D`` names the input of forms of one input.
"""

from pathlib import Path

from docutils.parsers.rst import directives
from published import list_table
from sphinx.util.docutils import SphinxDirective

from minitransformer import laws
from minitransformer.laws import forms


class FormDirective(SphinxDirective):
    required_arguments = 1
    option_spec = {"x": directives.unchanged}

    def run(self):
        self.env.note_dependency(str(Path(forms.__file__)))
        form = laws.form(self.arguments[0], self.options.get("x"))
        rows = [["Parameter", "Unit", "Meaning"]] + [[f"`{p.name}`", "–" if p.unit == "none" else p.unit, p.meaning] for p in form.parameters]
        command = f"`minitransformer fit TABLE.csv --law {form.name}" + (f" --x {form.x}`" if "x" in self.options else "`")
        text = "\n\n".join([
            list_table(rows, f"Parameters of the {form.title}.", f"tab-form-{form.name}", "18 26 56", look="published"),
            f"**Source**: {'; '.join(form.sources)}.\n**Holds for** {form.valid}.\n**Fit it** with {command}.",
        ])
        return self.parse_text_to_nodes(text)


def setup(app):
    app.add_directive("form", FormDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
