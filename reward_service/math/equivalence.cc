#include "reward_service/math/equivalence.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "reward_service/math/evaluate.h"
#include "reward_service/math/labels.h"
#include "reward_service/math/real_sets.h"
#include "reward_service/math/scalars.h"
#include "reward_service/math/units.h"

namespace e3::math {
namespace {

Comparison Different(const char* rule, std::string reason) {
  return {false, rule, std::move(reason)};
}

Comparison SetVerdict(bool same) {
  if (same) return {true, "set", "the same set of numbers"};
  return Different("set", "different sets of numbers");
}

class Comparer {
 public:
  Comparer(const Options& options, Work* work, Arena* arena)
      : options_(options), work_(work), arena_(arena) {}

  Comparison Compare(const Node& g, const Node& a) {
    if (++depth_ > 40) {
      --depth_;
      return Different("undecided", "nested too deeply to compare");
    }
    Comparison result = Dispatch(g, a);
    --depth_;
    return result;
  }

 private:
  static bool IsCondition(const Node* item) {
    return item->kind == Kind::kRelation && item->relations[0] == Relation::kIn &&
           item->args[1]->kind == Kind::kVariable && absl::StartsWith(item->args[1]->name, "\\bb");
  }

  // `answer` with its parameter called as the gold answer's: "k ∈ ℤ" in both, or a constant of
  // integration that only one letter stands for.
  const Node* SameParameter(const Node& gold, const Node& answer) {
    std::string from, to;
    if (gold.kind == Kind::kList && answer.kind == Kind::kList) {
      auto parameter = [](const Node& list) {
        std::string name;
        for (const Node* item : list.args) {
          if (IsCondition(item) && item->args[0]->kind == Kind::kVariable)
            name = item->args[0]->name;
        }
        return name;
      };
      to = parameter(gold);
      from = parameter(answer);
    } else if (IsScalar(gold) && IsScalar(answer)) {
      const std::vector<std::string> in_gold = Variables(gold), in_answer = Variables(answer);
      auto constant = [](const std::vector<std::string>& mine,
                         const std::vector<std::string>& others) {
        static constexpr absl::string_view kNames[] = {"C", "c", "K", "C_1", "c_1"};
        std::vector<std::string> only;
        std::set_difference(mine.begin(), mine.end(), others.begin(), others.end(),
                            std::back_inserter(only));
        const bool one = only.size() == 1 && std::find(std::begin(kNames), std::end(kNames),
                                                       only[0]) != std::end(kNames);
        return one ? only[0] : std::string();
      };
      to = constant(in_gold, in_answer);
      from = constant(in_answer, in_gold);
    }
    if (from.empty() || to.empty() || from == to) return &answer;
    return Renamed(&answer, from, to);
  }

  const Node* Renamed(const Node* node, const std::string& from, const std::string& to) {
    Node* copy = Copy(*node);
    if (copy->kind == Kind::kVariable && copy->name == from) copy->name = to;
    for (const Node*& arg : copy->args) arg = Renamed(arg, from, to);
    return copy;
  }

  // Without conditions on parameters ("n ∈ ℤ"), and with "x ≠ 0, 1" in full.
  const Node* Tidied(const Node* node) {
    if (node->kind != Kind::kList) return node;
    const Node& first = *node->args[0];
    const bool unequal = first.kind == Kind::kRelation &&
                         first.relations[0] == Relation::kNotEqual && first.args.size() == 2;
    if (!unequal && std::none_of(node->args.begin(), node->args.end(), IsCondition)) return node;
    Node* copy = Copy(*node);
    copy->args.clear();
    for (const Node* item : node->args) {
      if (IsCondition(item)) continue;
      if (unequal && IsScalar(*item)) {
        Node* relation = Copy(first);
        relation->args[1] = item;
        item = relation;
      }
      copy->args.push_back(item);
    }
    return copy->args.size() == 1 ? copy->args[0] : copy->args.empty() ? node : copy;
  }

  Comparison Dispatch(const Node& gold, const Node& answer) {
    const Node* renamed = SameParameter(gold, answer);
    const Node &g = *Tidied(&gold), &a = *Tidied(renamed);

    if (!work_->Spend(1) && work_->timed_out()) return Different("undecided", "no time left");
    if (g.kind == Kind::kRelation || a.kind == Kind::kRelation) return CompareRelations(g, a);
    if (IsMulti(g) || IsMulti(a)) return CompareLists(g, a);
    if (g.kind == Kind::kText || a.kind == Kind::kText) return CompareText(g, a);
    if (g.kind == Kind::kMeasure || a.kind == Kind::kMeasure) return CompareMeasures(g, a);
    if (g.kind == Kind::kRatio || a.kind == Kind::kRatio) return CompareRatios(g, a);
    if (g.kind == Kind::kBased || a.kind == Kind::kBased) return CompareBased(g, a);
    const Node& gs = *Distributed(&g);
    const Node& as = *Distributed(&a);
    if (IsTuple(gs) && IsTuple(as)) return CompareSequences(gs, as);
    if (IsSetNode(gs) || IsSetNode(as)) return CompareSets(gs, as);
    if (IsScalar(gs) && IsScalar(as)) return CompareScalars(gs, as, options_, work_);
    // (5) and {5} are 5; a vector of one entry too.
    if (IsTuple(gs) && gs.args.size() == 1 && IsScalar(as)) return Compare(*gs.args[0], as);
    if (IsTuple(as) && as.args.size() == 1 && IsScalar(gs)) return Compare(gs, *as.args[0]);
    return Different("kind", "one answer is a different kind of thing");
  }

  static bool IsTuple(const Node& node) {
    return node.kind == Kind::kSequence || node.kind == Kind::kMatrix;
  }
  static bool IsSetNode(const Node& node) {
    return node.kind == Kind::kSet || node.kind == Kind::kReals || node.kind == Kind::kUnion ||
           node.kind == Kind::kIntersection || node.kind == Kind::kDifference ||
           (node.kind == Kind::kSequence && node.args.size() == 2 &&
            (node.open == '[') != (node.close == ']'));
  }
  static bool IsMulti(const Node& node) {
    return node.kind == Kind::kList || (node.plus_minus && (IsScalar(node) || IsTuple(node)));
  }

  // k · (matrix or tuple) multiplied out; other nodes as they are.
  const Node* Distributed(const Node* node) {
    if (node->kind == Kind::kNegative && IsTuple(*node->args[0])) {
      Node* copy = Copy(*node->args[0]);
      for (const Node*& arg : copy->args) arg = arena_->New(Kind::kNegative, {arg});
      return copy;
    }
    if (node->kind == Kind::kQuotient && IsTuple(*node->args[0])) {
      Node* copy = Copy(*node->args[0]);
      for (const Node*& arg : copy->args) arg = arena_->New(Kind::kQuotient, {arg, node->args[1]});
      return copy;
    }
    if (node->kind == Kind::kProduct) {
      auto tuple = std::find_if(node->args.begin(), node->args.end(),
                                [](const Node* a) { return IsTuple(*a); });
      if (tuple == node->args.end() ||
          std::any_of(tuple + 1, node->args.end(), [](const Node* a) { return IsTuple(*a); }))
        return node;
      Node* copy = Copy(**tuple);
      for (const Node*& arg : copy->args) {
        std::vector<const Node*> factors = node->args;
        factors[static_cast<size_t>(tuple - node->args.begin())] = arg;
        arg = arena_->New(Kind::kProduct, std::move(factors));
      }
      return copy;
    }
    return node;
  }

  Node* Copy(const Node& node) {
    Node* copy = arena_->New(node.kind);
    *copy = node;
    return copy;
  }

  // --- Lists ---

  // The values of ± in `node`: 2^n of them, or two when ∓ ties them together.
  std::vector<const Node*> Signs(const Node& node) {
    int count = 0;
    bool tied = false;
    CountPlusMinus(node, &count, &tied);
    if (count == 0 || count > 5) return {&node};
    std::vector<const Node*> values;
    const int choices = tied ? 2 : 1 << count;
    for (int choice = 0; choice < choices; ++choice) {
      int at = 0;
      values.push_back(WithSigns(node, tied ? (choice == 0 ? 0 : ~0) : choice, &at));
    }
    return values;
  }
  static void CountPlusMinus(const Node& node, int* count, bool* tied) {
    if (node.kind == Kind::kPlusMinus) {
      ++*count;
      *tied = *tied || node.negative;
    }
    for (const Node* arg : node.args) CountPlusMinus(*arg, count, tied);
  }
  const Node* WithSigns(const Node& node, int choice, int* at) {
    if (node.kind == Kind::kPlusMinus) {
      const bool minus = (((choice >> *at) & 1) != 0) != node.negative;
      ++*at;
      const Node* value = WithSigns(*node.args[0], choice, at);
      return minus ? arena_->New(Kind::kNegative, {value}) : value;
    }
    if (!node.plus_minus) return &node;
    Node* copy = Copy(node);
    copy->plus_minus = false;
    for (const Node*& arg : copy->args) arg = WithSigns(*arg, choice, at);
    return copy;
  }

  std::vector<const Node*> Items(const Node& node) {
    std::vector<const Node*> items;
    if (node.kind == Kind::kList || node.kind == Kind::kSet) {
      for (const Node* arg : node.args) {
        std::vector<const Node*> signs = Signs(*arg);
        items.insert(items.end(), signs.begin(), signs.end());
      }
    } else {
      items = Signs(node);
    }
    return items;
  }

  // Several values on one side or both: a list, or what ± stands for.
  Comparison CompareLists(const Node& g, const Node& a) {
    auto has_inequality = [](const Node& list) {
      return list.kind == Kind::kList &&
             std::any_of(list.args.begin(), list.args.end(),
                         [](const Node* n) { return IsInequality(*n); });
    };
    if (has_inequality(g) || has_inequality(a) ||
        (g.kind == Kind::kList && IsSetNode(a) && a.kind != Kind::kSet)) {
      if (std::optional<Comparison> sets = CompareInequalityLists(g, a)) return *sets;
    }
    if (std::optional<Comparison> named = CompareNamed(g, a)) return *named;
    // A tuple in one and the same values in order in the other. Not an interval.
    if (IsPoint(g) && a.kind == Kind::kList) return InOrder(g, a);
    // Not for two plain values: (−2, 2) is an interval, or a point.
    if (g.kind == Kind::kList && IsPoint(a) && a.args.size() > 2) return InOrder(g, a);
    if (IsSetNode(g) && a.kind == Kind::kList &&
        std::all_of(a.args.begin(), a.args.end(),
                    [](const Node* n) { return IsSetNode(*n) || n->kind == Kind::kSequence; })) {
      // Intervals in a list stand for their union.
      Node* all = Copy(a);
      all->kind = Kind::kUnion;
      return CompareSets(g, *all);
    }
    return Match(Items(g), Items(a), g.kind == Kind::kList && a.kind == Kind::kList);
  }

  static bool IsPoint(const Node& node) {
    if (node.kind == Kind::kMatrix) return true;
    return node.kind == Kind::kSequence && (node.open == '(' || node.open == '<') &&
           (node.close == ')' || node.close == '>') &&
           std::none_of(node.args.begin(), node.args.end(),
                        [](const Node* n) { return InfinitySign(*n) != 0; });
  }

  // x = 1, y = 2 and (x, y) = (1, 2): values by the names that they are given. Empty for other
  // nodes.
  std::vector<std::pair<std::string, const Node*>> Named(const Node& node) {
    std::vector<std::pair<std::string, const Node*>> named;
    if (node.kind == Kind::kList) {
      for (const Node* item : node.args) {
        Labelled l = Unlabel(*item);
        if (l.label.empty() || l.loose || l.values.size() != 1) return {};
        named.emplace_back(l.label, l.values[0]);
      }
    } else if (node.kind == Kind::kRelation && IsEquation(node) && node.args.size() == 2 &&
               (node.args[0]->kind == Kind::kSequence || node.args[0]->kind == Kind::kList) &&
               (node.args[1]->kind == Kind::kSequence || node.args[1]->kind == Kind::kList) &&
               node.args[0]->args.size() == node.args[1]->args.size()) {
      for (size_t i = 0; i < node.args[0]->args.size(); ++i) {
        if (node.args[0]->args[i]->kind != Kind::kVariable) return {};
        named.emplace_back(node.args[0]->args[i]->name, node.args[1]->args[i]);
      }
    }
    std::vector<std::string> names;
    for (const auto& [name, value] : named) names.push_back(name);
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end() || names.size() < 2)
      return {};
    return named;
  }

  // Values with different names against the same names, or against a tuple in the order of the
  // alphabet.
  std::optional<Comparison> CompareNamed(const Node& g, const Node& a) {
    auto ng = Named(g), na = Named(a);
    if (ng.empty() && na.empty()) return std::nullopt;
    auto sorted = [](auto named) {
      std::sort(named.begin(), named.end(),
                [](const auto& x, const auto& y) { return x.first < y.first; });
      return named;
    };
    auto is_short = [](const auto& named) {
      return std::all_of(named.begin(), named.end(),
                         [](const auto& n) { return n.first.size() == 1; });
    };
    std::vector<const Node*> x, y;
    if (!ng.empty() && !na.empty()) {
      if (ng.size() != na.size()) return Different("list", "different numbers of values");
      ng = sorted(ng);
      na = sorted(na);
      for (size_t i = 0; i < ng.size(); ++i) {
        if (ng[i].first != na[i].first) return Different("list", "values of other names");
        x.push_back(ng[i].second);
        y.push_back(na[i].second);
      }
    } else {
      const Node& plain = ng.empty() ? g : a;
      if (!IsPoint(plain) && plain.kind != Kind::kList) return std::nullopt;
      auto named = ng.empty() ? na : ng;
      if (IsPoint(plain) && is_short(named)) named = sorted(named);
      if (named.size() != plain.args.size())
        return Different("list", "different numbers of values");
      for (size_t i = 0; i < named.size(); ++i) {
        x.push_back(ng.empty() ? plain.args[i] : named[i].second);
        y.push_back(ng.empty() ? named[i].second : plain.args[i]);
      }
    }
    for (size_t i = 0; i < x.size(); ++i) {
      Comparison c = Compare(*x[i], *y[i]);
      if (!c.equal) return Different("list", absl::StrCat("value ", i + 1, ": ", c.reason));
    }
    return Comparison{true, "list", "the same values by name"};
  }

  Comparison InOrder(const Node& g, const Node& a) {
    if (g.args.size() != a.args.size())
      return Different("list", absl::StrCat(a.args.size(), " values, not ", g.args.size()));
    for (size_t i = 0; i < g.args.size(); ++i) {
      Comparison c = Compare(*g.args[i], *a.args[i]);
      if (!c.equal) return Different("list", absl::StrCat("value ", i + 1, ": ", c.reason));
    }
    return {true, "list", "the same values in order"};
  }

  std::optional<Comparison> CompareInequalityLists(const Node& g, const Node& a) {
    // "or" is a union, "and" an intersection; commas may stand for either.
    auto fits = [](const Node& list, bool all) {
      return list.kind != Kind::kList || list.joint == ',' || list.joint == 0 ||
             (list.joint == 'a') == all;
    };
    for (int way = 0; way < 4; ++way) {
      const bool g_all = (way & 1) != 0, a_all = (way & 2) != 0;
      if (!fits(g, g_all) || !fits(a, a_all)) continue;
      const Node *gs = nullptr, *as = nullptr;
      std::optional<RealSet> sg = g.kind == Kind::kList
                                      ? ListToRealSet(g, g_all, work_, arena_, &gs)
                                      : ToRealSet(g, work_, arena_, &gs);
      std::optional<RealSet> sa = a.kind == Kind::kList
                                      ? ListToRealSet(a, a_all, work_, arena_, &as)
                                      : ToRealSet(a, work_, arena_, &as);
      if (!sg || !sa) return std::nullopt;
      std::optional<bool> same = SameSet(*sg, *sa, work_);
      if (same && *same && SameSubject(gs, as)) return SetVerdict(true);
    }
    return SetVerdict(false);
  }

  // Whether the items can be paired.
  Comparison Match(std::vector<const Node*> g, std::vector<const Node*> a, bool lists) {
    if (g.size() != a.size()) {
      // A value that ± or a set gives twice counts once.
      g = Distinct(std::move(g), !lists);
      a = Distinct(std::move(a), !lists);
      if (g.size() != a.size())
        return Different("list", absl::StrCat(a.size(), " values, not ", g.size()));
    }
    if (g.size() == 1) return Compare(*g[0], *a[0]);
    // Labels in one list only: by their order.
    const bool g_labels = !g.empty() && !Unlabel(*g[0]).label.empty(),
               a_labels = !a.empty() && !Unlabel(*a[0]).label.empty();
    std::vector<bool> used(a.size(), false);
    for (size_t i = 0; i < g.size(); ++i) {
      bool found = false;
      Comparison last;
      for (size_t k = 0; k < a.size() && !found; ++k) {
        if (used[k] || (g_labels != a_labels && LabelsDiffer(g, a) && i != k)) continue;
        if (work_->timed_out()) return Different("undecided", "no time left");
        last = Compare(*g[i], *a[k]);
        if (last.equal) found = used[k] = true;
      }
      if (!found)
        return Different("list", absl::StrCat("value ", i + 1, " of the gold answer is missing"));
    }
    return {true, "list", "the same values"};
  }

  // Whether the labels of the list that has them are several: x = 1, y = 2 (and not x = 1, x = 2).
  bool LabelsDiffer(const std::vector<const Node*>& g, const std::vector<const Node*>& a) {
    for (const auto* list : {&g, &a}) {
      std::string first = Unlabel(*(*list)[0]).label;
      if (first.empty()) continue;
      for (const Node* node : *list) {
        if (Unlabel(*node).label != first && !Unlabel(*node).label.empty()) return true;
      }
    }
    return false;
  }

  std::vector<const Node*> Distinct(std::vector<const Node*> items, bool drop) {
    if (!drop || items.size() > 40) return items;
    std::vector<const Node*> kept;
    for (const Node* item : items) {
      bool known = std::any_of(kept.begin(), kept.end(),
                               [&](const Node* k) { return Compare(*k, *item).equal; });
      if (!known) kept.push_back(item);
    }
    return kept;
  }

  // --- Relations ---

  bool SameSubject(const Node* g, const Node* a) {
    if (g == nullptr || a == nullptr)
      return (g == nullptr || IsLabel(*g)) && (a == nullptr || IsLabel(*a));
    if (g->kind == Kind::kSequence || a->kind == Kind::kSequence) return true;
    return Compare(*g, *a).equal;
  }

  Comparison CompareRelations(const Node& g, const Node& a) {
    if (IsInequality(g) || IsInequality(a)) {
      if (g.kind == Kind::kList || a.kind == Kind::kList) {
        if (std::optional<Comparison> sets = CompareInequalityLists(g, a)) return *sets;
      }
      const Node *gs = nullptr, *as = nullptr;
      std::optional<RealSet> sg = ToRealSet(g, work_, arena_, &gs);
      std::optional<RealSet> sa = ToRealSet(a, work_, arena_, &as);
      if (sg && sa) {
        if (!SameSubject(gs, as)) return Different("set", "about different quantities");
        if (std::optional<bool> same = SameSet(*sg, *sa, work_)) return SetVerdict(*same);
      }
      if (IsInequality(g) && IsInequality(a)) return CompareInequalities(g, a);
      // x ∈ {1, 2} against 1, 2.
      if (IsInequality(g) && g.relations[0] == Relation::kIn) return Compare(*g.args[1], a);
      if (IsInequality(a) && a.relations[0] == Relation::kIn) return Compare(g, *a.args[1]);
      return Different("kind", "only one answer is an inequality");
    }
    if (std::optional<Comparison> named = CompareNamed(g, a)) return *named;
    Labelled lg = Unlabel(g), la = Unlabel(a);
    const bool equations = IsEquation(g) && IsEquation(a);
    const bool simple = equations && g.args.size() == 2 && a.args.size() == 2;  // left = right
    // Two equations are compared as such.
    if ((lg.loose || la.loose) && equations)
      return simple ? CompareEquations(g, a) : Compare(*lg.values.back(), *la.values.back());
    const bool both = !lg.label.empty() && !la.label.empty();
    if (both && lg.label != la.label && !(lg.function && la.function)) {
      if (simple) return CompareEquations(g, a);
      return Different("equation", "about different quantities");
    }
    // An equation that only one side has, and no label: different things.
    const bool eg = lg.values.size() == 1 && lg.values[0] == &g && IsEquation(g);
    const bool ea = la.values.size() == 1 && la.values[0] == &a && IsEquation(a);
    if (eg || ea) {
      if (simple) return CompareEquations(g, a);
      return Different("kind", "only one answer is an equation");
    }
    // Chains of equal values: an answer must not contradict itself.
    Comparison last = Different("equation", "no value");
    for (size_t i = 1; i < la.values.size(); ++i) {
      Comparison forward = Compare(*la.values[0], *la.values[i]);
      if (!forward.equal && !Compare(*la.values[i], *la.values[0]).equal)
        return Different("equation", "the sides of the answer are not equal");
    }
    for (const Node* x : lg.values) {
      for (const Node* y : la.values) {
        last = Compare(*x, *y);
        if (last.equal) return last;
      }
    }
    return last;
  }

  const Node* Difference(const Node& equation) {
    return arena_->New(Kind::kSum,
                       {equation.args[0], arena_->New(Kind::kNegative, {equation.args[1]})});
  }

  Comparison CompareEquations(const Node& g, const Node& a) {
    for (const Node* node : {&g, &a}) {
      for (const Node* side : node->args) {
        if (!IsScalar(*side)) {
          Comparison left = Compare(*g.args[0], *a.args[0]);
          return left.equal ? Compare(*g.args[1], *a.args[1]) : left;
        }
      }
    }
    return CompareUpToFactor(*Difference(g), *Difference(a), false, work_);
  }

  // a·x + b·y ≤ c: brought to one side.
  Comparison CompareInequalities(const Node& g, const Node& a) {
    if (g.args.size() != a.args.size() || g.args.size() != 2) {
      if (g.args.size() != a.args.size())
        return Different("inequality", "different numbers of sides");
      // Chains: side by side, in the same direction or the other.
      bool same = g.relations == a.relations;
      for (size_t i = 0; i < g.args.size() && same; ++i)
        same = Compare(*g.args[i], *a.args[i]).equal;
      return same ? Comparison{true, "inequality", "the same sides"}
                  : Different("inequality", "different sides");
    }
    auto is_greater = [](Relation r) {
      return r == Relation::kGreater || r == Relation::kGreaterEqual;
    };
    auto is_strict = [](Relation r) { return r == Relation::kGreater || r == Relation::kLess; };
    if (g.relations[0] == Relation::kNotEqual || a.relations[0] == Relation::kNotEqual ||
        g.relations[0] == Relation::kIn || a.relations[0] == Relation::kIn) {
      if (g.relations[0] != a.relations[0]) return Different("inequality", "different relations");
      return CompareEquations(g, a);
    }
    if (is_strict(g.relations[0]) != is_strict(a.relations[0]))
      return Different("inequality", "strict against not strict");
    for (const Node* node : {&g, &a}) {
      for (const Node* side : node->args) {
        if (!IsScalar(*side))
          return Different("kind", "an inequality of something else than values");
      }
    }
    const Node *dg = Difference(g), *da = Difference(a);
    if (is_greater(g.relations[0]) != is_greater(a.relations[0]))
      da = arena_->New(Kind::kNegative, {da});
    return CompareUpToFactor(*dg, *da, true, work_);
  }

  // --- Text ---

  static std::string Squeezed(absl::string_view text) {
    std::string squeezed =
        absl::StrReplaceAll(absl::AsciiStrToLower(text),
                            {{" ", ""}, {"-", ""}, {"_", ""}, {"'", ""}, {",", ""}, {".", ""}});
    for (absl::string_view prefix : {"the ", "an ", "a ", "option ", "choice ", "answer "}) {
      if (absl::StartsWith(text, prefix)) squeezed.erase(0, prefix.size() - 1);
    }
    // January 5th
    for (size_t i = 0; i < squeezed.size(); ++i) {
      if (!absl::ascii_isdigit(static_cast<unsigned char>(squeezed[i]))) continue;
      const std::string next = squeezed.substr(i + 1, 2);
      if ((next == "st" || next == "nd" || next == "rd" || next == "th") &&
          (i + 3 >= squeezed.size() ||
           !absl::ascii_isalpha(static_cast<unsigned char>(squeezed[i + 3]))))
        squeezed.erase(i + 1, 2);
    }
    return squeezed;
  }

  static std::optional<std::string> AsText(const Node& node) {
    if (node.kind == Kind::kText || node.kind == Kind::kVariable) return node.name;
    if (node.kind == Kind::kNumber && node.number.IsInteger() && node.number.Bits() < 64)
      return Digits(node.number);
    if (node.kind == Kind::kE) return "e";
    if (node.kind == Kind::kI) return "i";
    if (node.kind == Kind::kProduct) {
      std::string text;
      for (const Node* arg : node.args) {
        std::optional<std::string> part = AsText(*arg);
        if (!part) return std::nullopt;
        text += *part;
      }
      return text;
    }
    if (node.kind == Kind::kMeasure) {
      // "A right": a letter and words.
      if (std::optional<std::string> value = AsText(*node.args[0]))
        return absl::StrCat(*value, " ", node.name);
    }
    return std::nullopt;
  }

  Comparison CompareText(const Node& g, const Node& a) {
    std::optional<std::string> x = AsText(g), y = AsText(a);
    if (!x || !y || g.kind == Kind::kNumber || a.kind == Kind::kNumber)
      return Different("text", "words on one side only");
    if (Squeezed(*x).empty()) return Different("text", "no words");
    const bool same = Squeezed(*x) == Squeezed(*y);
    return {same, "text", same ? "the same words" : "different words"};
  }

  // --- Units ---

  struct Measured {
    const Node* value;
    std::string unit;
  };
  Measured Measure(const Node& node) {
    if (node.kind != Kind::kMeasure) return {&node, ""};
    Measured inner = Measure(*node.args[0]);
    // "5 dollars" with a $: the words say the same.
    std::string unit = inner.unit.empty() ? node.name : inner.unit;
    return {inner.value, unit};
  }

  const Node* Scaled(const Node* value, int64_t numerator, int64_t denominator) {
    if (numerator == denominator) return value;
    return arena_->New(Kind::kQuotient,
                       {arena_->New(Kind::kProduct, {value, arena_->Integer(numerator)}),
                        arena_->Integer(denominator)});
  }

  Comparison CompareMeasures(const Node& g, const Node& a) {
    Measured mg = Measure(g), ma = Measure(a);
    auto plain = [&] { return Compare(*mg.value, *ma.value); };
    if (mg.value->kind == Kind::kText || ma.value->kind == Kind::kText) return CompareText(g, a);
    if (mg.unit == ma.unit) return plain();
    if (mg.unit == "%" || ma.unit == "%") {
      if (mg.unit == "%") {
        Comparison c = plain();
        if (c.equal || !ma.unit.empty()) return c;
        Comparison fraction = Compare(*Scaled(mg.value, 1, 100), *ma.value);
        return fraction.equal ? fraction : c;
      }
      Comparison fraction = Compare(*mg.value, *Scaled(ma.value, 1, 100));
      if (fraction.equal) return fraction;
      // 50 for "what percent": not where the gold answer is a fraction itself.
      std::optional<int> order = Order(*mg.value, *arena_->Integer(1), work_);
      if (!order || *order <= 0) return fraction;
      return plain();
    }
    if (mg.unit == "°" || ma.unit == "°") {
      Comparison c = plain();
      if (c.equal) return c;
      // Degrees against radians.
      if (mg.unit.empty() || ma.unit.empty()) {
        Comparison radians =
            CompareAngles(mg.unit.empty() ? *mg.value : g, ma.unit.empty() ? *ma.value : a);
        if (radians.equal) return radians;
      }
      return c;
    }
    int gp = 1, ap = 1;
    const Unit *gu = ParseUnit(mg.unit, &gp), *au = ParseUnit(ma.unit, &ap);
    if (gu != nullptr && au != nullptr) {
      const std::string_view gd = gu->dimension, ad = au->dimension;
      if (gd != ad || gp != ap)
        return Different("unit", absl::StrCat("in ", ma.unit, ", not ", mg.unit));
      const Node *x = mg.value, *y = ma.value;
      for (int i = 0; i < gp; ++i) {
        if (gu->numerator == au->numerator && gu->denominator == au->denominator) break;
        x = Scaled(x, gu->numerator, gu->denominator);
        y = Scaled(y, au->numerator, au->denominator);
      }
      Comparison c = Compare(*x, *y);
      if (!c.equal && x == mg.value) return c;
      return {c.equal, "unit",
              c.equal
                  ? "the same after conversion of units"
                  : absl::StrCat("not the same after conversion from ", ma.unit, " to ", mg.unit)};
    }
    return plain();
  }

  // Degrees against radians: the balls know what ° means.
  Comparison CompareAngles(const Node& g, const Node& a) {
    if (!IsScalar(g) || !IsScalar(a)) return Different("kind", "one answer is an angle");
    return CompareScalars(g, a, options_, work_);
  }

  // --- Ratios, times of day ---

  Comparison CompareRatios(const Node& g, const Node& a) {
    if (g.kind == Kind::kRatio && a.kind == Kind::kRatio) {
      if (g.args.size() != a.args.size()) return Different("ratio", "different numbers of parts");
      bool same = true;
      for (size_t i = 0; i < g.args.size() && same; ++i)
        same = Compare(*g.args[i], *a.args[i]).equal;
      if (same) return {true, "ratio", "the same parts"};
      for (const Node* ratio : {&g, &a}) {
        for (const Node* arg : ratio->args) {
          if (!IsScalar(*arg)) return Different("ratio", "different parts");
        }
      }
      // 6 : 10 is 3 : 5.
      if (IsClock(g)) return Different("ratio", "a different time");
      for (size_t i = 1; i < g.args.size(); ++i) {
        const Node* x = arena_->New(Kind::kProduct, {g.args[0], a.args[i]});
        const Node* y = arena_->New(Kind::kProduct, {a.args[0], g.args[i]});
        if (!CompareScalars(*x, *y, {}, work_).equal) return Different("ratio", "different ratios");
      }
      for (const Node* arg : a.args) {
        if (CompareScalars(*arg, *arena_->Integer(0), {}, work_).equal)
          return Different("ratio", "different ratios");
      }
      return {true, "ratio", "the same ratio"};
    }
    const Node& ratio = g.kind == Kind::kRatio ? g : a;
    const Node& other = g.kind == Kind::kRatio ? a : g;
    if (ratio.args.size() != 2 || !IsScalar(other) || !IsScalar(*ratio.args[0]) ||
        !IsScalar(*ratio.args[1]) || IsClock(ratio))
      return Different("ratio", "only one answer is a ratio");
    const Node* quotient = arena_->New(Kind::kQuotient, {ratio.args[0], ratio.args[1]});
    Comparison c = g.kind == Kind::kRatio ? CompareScalars(*quotient, other, {}, work_)
                                          : CompareScalars(other, *quotient, {}, work_);
    return {c.equal, "ratio", c.equal ? "the ratio as a fraction" : c.reason};
  }

  // A gold answer 9:24 is not in lowest terms: a time of day or the like, and no ratio.
  static bool IsClock(const Node& ratio) {
    if (ratio.args.size() != 2) return false;
    if (ratio.args[0]->kind != Kind::kNumber || ratio.args[1]->kind != Kind::kNumber) return false;
    if (!ratio.args[0]->number.IsInteger() || !ratio.args[1]->number.IsInteger()) return false;
    Rational common;
    fmpz_gcd(fmpq_numref(common.get()), ratio.args[0]->number.numerator(),
             ratio.args[1]->number.numerator());
    return !fmpz_is_one(common.numerator());
  }

  // --- Numbers in a base ---

  Comparison CompareBased(const Node& g, const Node& a) {
    if (g.kind == Kind::kBased && a.kind == Kind::kNumber && g.base != 10) {
      // Without its base, an answer is read in the question's: its digits count.
      std::string digits =
          a.number.Bits() < 8000 && a.number.IsInteger() && a.decimals < 0 ? Digits(a.number) : "";
      const bool same = digits == g.name;
      return {same, "base",
              same ? absl::StrCat("the digits in base ", g.base)
                   : absl::StrCat("not the digits in base ", g.base)};
    }
    if (IsTuple(g) || IsTuple(a) || !IsScalar(g) || !IsScalar(a))
      return Different("kind", "only one answer is a number in a base");
    Comparison c = CompareScalars(g, a, options_, work_);
    if (c.rule == "rational") c.rule = "base";
    return c;
  }

  static std::string Digits(const Rational& value) {
    char* text = fmpz_get_str(nullptr, 10, value.numerator());
    std::string digits(text);
    flint_free(text);
    return digits;
  }

  // --- Tuples and sets ---

  Comparison CompareSequences(const Node& g, const Node& a) {
    if (g.kind == Kind::kMatrix && a.kind == Kind::kMatrix &&
        (g.rows != a.rows || g.columns != a.columns)) {
      const bool vectors = (g.rows == 1 || g.columns == 1) && (a.rows == 1 || a.columns == 1);
      if (!vectors)
        return Different(
            "matrix", absl::StrCat(a.rows, " × ", a.columns, ", not ", g.rows, " × ", g.columns));
    }
    const bool g_vector = g.kind == Kind::kSequence || g.rows == 1 || g.columns == 1;
    const bool a_vector = a.kind == Kind::kSequence || a.rows == 1 || a.columns == 1;
    if (g_vector != a_vector) return Different("kind", "only one answer is a matrix");
    const char* rule = g.kind == Kind::kMatrix ? "matrix" : "tuple";
    if (g.kind == Kind::kSequence && a.kind == Kind::kSequence && g.args.size() == 2) {
      if ((g.open == '[') != (a.open == '[') || (g.close == ']') != (a.close == ']')) {
        // [a, b] for a vector ⟨a, b⟩.
        if (g.open != '<' && a.open != '<') return Different("interval", "the brackets differ");
      }
    }
    if (g.args.size() != a.args.size())
      return Different(rule, absl::StrCat(a.args.size(), " entries, not ", g.args.size()));
    for (size_t i = 0; i < g.args.size(); ++i) {
      Comparison c = Compare(*g.args[i], *a.args[i]);
      if (!c.equal)
        return Different(c.rule == "undecided" ? "undecided" : rule,
                         absl::StrCat("entry ", i + 1, ": ", c.reason));
    }
    return {true, rule, "the same entries"};
  }

  Comparison CompareSets(const Node& g, const Node& a) {
    if (g.kind == Kind::kSet && (a.kind == Kind::kSet || IsScalar(a))) {
      if (g.args.empty() != (a.kind == Kind::kSet && a.args.empty()))
        return Different("set", "only one answer is the empty set");
      if (g.args.empty()) return {true, "set", "both empty"};
      Comparison c = Match(Distinct(Items(g), true), Distinct(Items(a), true), false);
      if (c.rule == "list") c.rule = "set";
      return c;
    }
    if (a.kind == Kind::kSet && IsScalar(g))
      return a.args.empty() ? Different("set", "the empty set")
                            : Match({&g}, Distinct(Items(a), true), false);
    // {(1, 2)} is the point (1, 2) where there is one solution.
    if (g.kind == Kind::kSet && g.args.size() == 1 && IsTuple(a)) return Compare(*g.args[0], a);
    if (a.kind == Kind::kSet && a.args.size() == 1 && IsTuple(g)) return Compare(g, *a.args[0]);
    const Node *gs = nullptr, *as = nullptr;
    std::optional<RealSet> sg = ToRealSet(g, work_, arena_, &gs),
                           sa = ToRealSet(a, work_, arena_, &as);
    if (sg && sa) {
      if (std::optional<bool> same = SameSet(*sg, *sa, work_)) return SetVerdict(*same);
    }
    if (g.kind == Kind::kSequence && a.kind == Kind::kSequence) return CompareSequences(g, a);
    if (g.kind == a.kind && g.args.size() == a.args.size()) {
      for (size_t i = 0; i < g.args.size(); ++i) {
        Comparison c = Compare(*g.args[i], *a.args[i]);
        if (!c.equal) return c;
      }
      return {true, "set", "the same parts"};
    }
    return Different("kind", "one answer is a different kind of thing");
  }

  const Options& options_;
  Work* work_;
  Arena* arena_;
  int depth_ = 0;
};

}  // namespace

Comparison Compare(const Node& gold, const Node& answer, const Options& options, Work* work,
                   Arena* arena) {
  return Comparer(options, work, arena).Compare(gold, answer);
}

}  // namespace e3::math
