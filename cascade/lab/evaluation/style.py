"""The style sheet of a report."""

STYLE = """
:root{--ink:#1c2430;--quiet:#55606e;--page:#fff;--card:#f4f6f9;--line:#d5dbe3;--good:#1f7a45;--bad:#b3261e;
 --warn:#fff4dc;--c0:#2563b0;--c1:#c2410c;--c2:#0f766e;--c3:#8b3fa8;--c4:#8a6d00;--c5:#b0256b}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf0;--quiet:#a9b4c2;--page:#12161c;--card:#1e2530;
 --line:#39434f;--good:#6fcf97;--bad:#ff8a80;--warn:#3a2f16;--c0:#7fb2f0;--c1:#ff9d66;--c2:#5fd0c0;
 --c3:#d59bea;--c4:#e0c25a;--c5:#f58bbb}}
@media print{:root{--ink:#000;--quiet:#444;--page:#fff;--card:#fff;--line:#bbb;--good:#145c33;--bad:#8c1d18;
 --warn:#fff;--c0:#1d4f91;--c1:#a33a0a;--c2:#0b5e57;--c3:#6f3187;--c4:#6e5700;--c5:#8e1d56}}
@page{margin:14mm}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.45;
 font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:1080px;margin:0 auto;padding:20px 16px 40px}
h1{font-size:1.5rem;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6em 0 .5em}
figure h2{margin-top:0}
.lead{color:var(--quiet);margin:.2em 0 1em;overflow-wrap:anywhere}
.warn{background:var(--warn);border-left:4px solid var(--c4);padding:8px 12px;margin:0 0 1em}
.cards{display:grid;grid-template-columns:repeat(5,1fr);gap:10px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card span,.card small{display:block;color:var(--quiet)}.card b{font-size:1.35rem;white-space:nowrap}
small{font-size:.8rem}
.charts{display:grid;align-items:start;grid-template-columns:repeat(2,1fr);gap:16px;margin-top:20px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px}
figure svg:first-of-type{display:block;width:100%;height:auto}
figcaption,.note{color:var(--quiet);font-size:.87rem;margin:.4em 0 0}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:.3em 0;padding:0;font-size:.87rem}
.legend li{overflow-wrap:anywhere}
.legend svg.key,figure svg.key{display:inline-block;width:13px;height:13px;margin-right:5px;
 vertical-align:-1px}
table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--line);vertical-align:top;
 font-variant-numeric:tabular-nums}
th{font-weight:600}thead th{color:var(--quiet);font-size:.87rem;vertical-align:bottom}
th:first-child{text-align:left;overflow-wrap:anywhere;min-width:6em}
td small,th small{display:block;color:var(--quiet);font-weight:400;white-space:nowrap}
.bars td.bar{width:100%;padding:5px 0}
.bars i{display:block;height:18px;background:var(--c0);border-radius:3px;min-width:1px}
.bars i.none{background:var(--quiet)}
.bars th:first-child{white-space:nowrap;max-width:11em;overflow:hidden;text-overflow:ellipsis}
.good{color:var(--good);white-space:nowrap}.bad{color:var(--bad);white-space:nowrap}
svg text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}
svg text.small{font-size:12px;fill:var(--quiet)}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--quiet);stroke-width:1}
svg .rule{stroke:var(--quiet);stroke-dasharray:5 4}
svg .line{fill:none;stroke-width:2}svg .thin{stroke-width:1.2}svg .dashed{stroke-dasharray:5 4;stroke-width:1}
svg .ideal .line{stroke:var(--quiet)}
svg.forest{width:120px;height:16px;margin-top:3px}
.line.s0{stroke:var(--c0)}.line.s1{stroke:var(--c1)}.line.s2{stroke:var(--c2)}.line.s3{stroke:var(--c3)}
.line.s4{stroke:var(--c4)}.line.s5{stroke:var(--c5)}
.dot.s0{fill:var(--c0)}.dot.s1{fill:var(--c1)}.dot.s2{fill:var(--c2)}.dot.s3{fill:var(--c3)}
.dot.s4{fill:var(--c4)}.dot.s5{fill:var(--c5)}
@media (max-width:760px){.cards{grid-template-columns:repeat(2,1fr)}.charts{grid-template-columns:1fr}
 .card b{font-size:1.2rem}main{padding:12px 10px 30px}figure{padding:8px}th,td{padding:5px 6px}}
@media screen and (max-width:600px){.grid thead{display:none}
 .grid tr{display:block;border-bottom:1px solid var(--line);padding:8px 0}
 .grid th,.grid td{display:flex;justify-content:space-between;gap:10px;border:0;padding:2px 0}
 .grid th{font-size:1rem}.grid td::before{content:attr(data-name);color:var(--quiet)}
 .grid td small{display:inline-block;margin-left:8px}.grid td:has(svg),.grid td:empty{display:none}}
@media print{.cards{grid-template-columns:repeat(5,1fr);gap:6px}.charts{grid-template-columns:repeat(2,1fr)}
 main{max-width:none;padding:0 2px}.card,figure,tr{break-inside:avoid}
 .card{padding:6px 8px}.card b{font-size:1.15rem}h2{break-after:avoid}body{font-size:10.5pt}
 th,td{padding:4px}.grid{font-size:9.5pt}.grid td small{white-space:normal;font-size:7.5pt}}
"""
