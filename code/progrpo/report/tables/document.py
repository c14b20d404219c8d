"""A document that sets all tables of a tier, for reading them on paper."""

from progrpo.config import Config
from progrpo.report.tables.latex import LEGEND, escape, literal
from progrpo.report.tables.layout import load_layout, table_names

HEAD = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=18mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx,textcomp}
\setlength{\parindent}{0pt}
\newsavebox{\tablebox}
\newcommand{\settable}[1]{\sbox{\tablebox}{\small\input{#1}\unskip}%
  \ifdim\wd\tablebox>\linewidth\resizebox{\linewidth}{!}{\usebox{\tablebox}}\else\usebox{\tablebox}\fi}
\input{numbers.tex}
\begin{document}
"""


def document(config: Config) -> str:
    """LaTeX that inputs every fragment of its own folder, in the paper's order; needs texlive-latex-recommended."""
    layouts = {name: load_layout(name) for name in table_names()}
    ordered = sorted((int(layout.number), name) for name, layout in layouts.items() if layout.number)
    parts = [
        HEAD,
        f"{{\\Large\\bfseries Pro-GRPO: the paper's tables, tier {literal(config.tier)}}}\\par\\medskip\n",
        f"{LEGEND}\\par\n",
    ]
    for number, name in ordered:
        layout = layouts[name]
        parts.append(
            "\\bigskip\\begin{minipage}{\\linewidth}\n"
            f"\\textbf{{Table {number}.}} {escape(layout.caption)}\\par\\smallskip\n\\settable{{{name}.tex}}\n"
            "\\end{minipage}\\par\n"
        )
    parts.append("\\end{document}\n")
    return "".join(parts)
