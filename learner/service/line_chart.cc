#include "learner/service/line_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace e3 {
namespace {

constexpr double kWidth = 420, kHeight = 180, kLeft = 52, kRight = 10, kTop = 10, kBottom = 28;

std::string Tick(double value) {
  const double size = std::fabs(value);
  if (size >= 1e6) return absl::StrFormat("%.2fM", value / 1e6);
  if (size >= 1e4) return absl::StrFormat("%.1fk", value / 1e3);
  if (size >= 100) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%.3g", value);
}

}  // namespace

std::string ChartColor(size_t i) {
  static const char* kColors[] = {"#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626"};
  return kColors[i % 5];
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string LineChart(const std::string& title, const std::string& x_label,
                      const std::vector<ChartSeries>& series) {
  double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
  for (const ChartSeries& s : series) {
    for (auto [x, y] : s.points) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
      first = std::min(first, x);
      last = std::max(last, x);
    }
  }
  if (!std::isfinite(low)) return "";
  if (high - low < 1e-12) high = low + (low == 0 ? 1 : std::fabs(low) * 0.1);
  if (last - first < 1e-12) last = first + 1;
  auto px = [&](double x) {
    return kLeft + (x - first) / (last - first) * (kWidth - kLeft - kRight);
  };
  auto py = [&](double y) { return kTop + (high - y) / (high - low) * (kHeight - kTop - kBottom); };
  std::string svg = absl::StrFormat(
      "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %g %g\" role=\"img\" "
      "aria-label=\"%s\">",
      EscapeHtml(title), kWidth, kHeight, EscapeHtml(title));
  for (int i = 0; i <= 3; ++i) {
    const double value = low + (high - low) * i / 3;
    absl::StrAppendFormat(&svg,
                          "<line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>"
                          "<text x=\"%g\" y=\"%.1f\" class=\"tick end\">%s</text>",
                          kLeft, kWidth - kRight, py(value), py(value), kLeft - 5, py(value) + 3,
                          Tick(value));
  }
  absl::StrAppendFormat(&svg,
                        "<text x=\"%g\" y=\"%g\" class=\"tick\">%s %s</text>"
                        "<text x=\"%g\" y=\"%g\" class=\"tick end\">%s</text>",
                        kLeft, kHeight - 8, EscapeHtml(x_label), Tick(first), kWidth - kRight,
                        kHeight - 8, Tick(last));
  std::string legend;
  for (const ChartSeries& s : series) {
    std::string points;
    size_t count = 0;
    for (auto [x, y] : s.points) {
      if (!std::isfinite(y)) continue;
      absl::StrAppendFormat(&points, "%.1f,%.1f ", px(x), py(y));
      ++count;
      if (s.points.size() <= 10) {  // few points are shown as points too
        absl::StrAppendFormat(&svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>",
                              px(x), py(y), s.color);
      }
    }
    if (count > 1)
      absl::StrAppendFormat(&svg, "<polyline points=\"%s\" style=\"stroke:%s\"/>", points, s.color);
    if (count > 0 && !s.name.empty())
      absl::StrAppendFormat(&legend, "<span style=\"color:%s\">&#9632; %s</span> ", s.color,
                            EscapeHtml(s.name));
  }
  svg += "</svg>";
  if (!legend.empty()) absl::StrAppend(&svg, "<div class=\"legend\">", legend, "</div>");
  return svg + "</figure>\n";
}

}  // namespace e3
