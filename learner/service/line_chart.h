// Line charts as inline SVG, for pages that are one file.
#ifndef E3_LEARNER_SERVICE_LINE_CHART_H_
#define E3_LEARNER_SERVICE_LINE_CHART_H_

#include <string>
#include <utility>
#include <vector>

namespace e3 {

struct ChartSeries {
  std::string name;                               // empty: not in the legend
  std::string color;                              // CSS
  std::vector<std::pair<double, double>> points;  // (x, y) by ascending x; not finite: left out
};

// A <figure>; empty when no series has a point. Text is escaped.
std::string LineChart(const std::string& title, const std::string& x_label,
                      const std::vector<ChartSeries>& series);

// The colour of the i-th series of a page.
std::string ChartColor(size_t i);

// Text made safe inside HTML elements and attributes.
std::string EscapeHtml(const std::string& text);

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_LINE_CHART_H_
