"""The style sheet of a report."""

from cascade.svg import variables

STYLE = (
    f"{variables(printed=True)}\n"
    + """
@page{margin:14mm}
*{box-sizing:border-box}
body{margin:0;background:var(--panel);color:var(--ink);line-height:1.45;
 font:15px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;
 print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:1080px;margin:0 auto;padding:20px 16px 40px}
h1{font-size:1.5rem;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.6em 0 .5em}
figure h2{margin-top:0}
.lead{color:var(--soft);margin:.2em 0 1em;overflow-wrap:anywhere}
.warn{background:var(--warn-bg);border-left:4px solid var(--series-4);padding:8px 12px;margin:0 0 1em}
.cards{display:grid;grid-template-columns:repeat(5,1fr);gap:10px}
.card{background:var(--sunk);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card span,.card small{display:block;color:var(--soft)}.card b{font-size:1.35rem;white-space:nowrap}
small{font-size:.8rem}
.charts{display:grid;align-items:start;grid-template-columns:repeat(2,1fr);gap:16px;margin-top:20px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px}
figure svg:first-of-type{display:block;width:100%;height:auto}
figcaption,.note{color:var(--soft);font-size:.87rem;margin:.4em 0 0}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:.3em 0;padding:0;font-size:.87rem}
.legend li{overflow-wrap:anywhere}
.legend svg.key,figure svg.key{display:inline-block;width:13px;height:13px;margin-right:5px;
 vertical-align:-1px}
table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--line);vertical-align:top;
 font-variant-numeric:tabular-nums}
th{font-weight:600}thead th{color:var(--soft);font-size:.87rem;vertical-align:bottom}
th:first-child{text-align:left;overflow-wrap:anywhere;min-width:6em}
td small,th small{display:block;color:var(--soft);font-weight:400;white-space:nowrap}
.bars td.bar{width:100%;padding:5px 0}
.bars i{display:block;height:18px;background:var(--series-0);border-radius:3px;min-width:1px}
.bars i.none{background:var(--soft)}
.bars th:first-child{white-space:nowrap;max-width:11em;overflow:hidden;text-overflow:ellipsis}
.good{color:var(--good);white-space:nowrap}.bad{color:var(--bad);white-space:nowrap}
svg text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}
svg text.small{font-size:12px;fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft);stroke-width:1}
svg .rule{stroke:var(--soft);stroke-dasharray:5 4}svg text.rule-text{font-size:12px;fill:var(--soft)}
svg .line{fill:none;stroke-width:2}svg .thin{stroke-width:1.2}svg .dashed{stroke-dasharray:5 4;stroke-width:1}
svg .line.ideal{stroke:var(--soft)}
svg.forest{width:120px;height:16px;margin-top:3px}
.line.s0{stroke:var(--series-0)}.line.s1{stroke:var(--series-1)}.line.s2{stroke:var(--series-2)}.line.s3{stroke:var(--series-3)}
.line.s4{stroke:var(--series-4)}.line.s5{stroke:var(--series-5)}
.dot.s0{fill:var(--series-0)}.dot.s1{fill:var(--series-1)}.dot.s2{fill:var(--series-2)}.dot.s3{fill:var(--series-3)}
.dot.s4{fill:var(--series-4)}.dot.s5{fill:var(--series-5)}
@media (max-width:760px){.cards{grid-template-columns:repeat(2,1fr)}.charts{grid-template-columns:1fr}
 .card b{font-size:1.2rem}main{padding:12px 10px 30px}figure{padding:8px}th,td{padding:5px 6px}}
@media screen and (max-width:600px){.grid thead{display:none}
 .grid tr{display:block;border-bottom:1px solid var(--line);padding:8px 0}
 .grid th,.grid td{display:flex;justify-content:space-between;gap:10px;border:0;padding:2px 0}
 .grid th{font-size:1rem}.grid td::before{content:attr(data-name);color:var(--soft)}
 .grid td small{display:inline-block;margin-left:8px}.grid td:has(svg),.grid td:empty{display:none}}
@media print{.cards{grid-template-columns:repeat(5,1fr);gap:6px}.charts{grid-template-columns:repeat(2,1fr)}
 main{max-width:none;padding:0 2px}.card,figure,tr{break-inside:avoid}
 .card{padding:6px 8px}.card b{font-size:1.15rem}h2{break-after:avoid}body{font-size:10.5pt}
 th,td{padding:4px}.grid{font-size:9.5pt}.grid td small{white-space:normal;font-size:7.5pt}}
"""
)
