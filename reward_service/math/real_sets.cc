#include "reward_service/math/real_sets.h"

#include <algorithm>

#include "reward_service/math/evaluate.h"
#include "reward_service/math/scalars.h"

namespace e3::math {
namespace {

class Builder {
 public:
  Builder(Work* work, Arena* arena) : work_(work), arena_(arena) {}

  std::optional<RealSet> Build(const Node& node, const Node** subject) {
    switch (node.kind) {
      case Kind::kReals:
        return RealSet{{Infinity(-1), Infinity(1), false, false}};
      case Kind::kSequence: {
        if (node.args.size() != 2 || node.open == '<') return std::nullopt;
        Piece piece{node.args[0], node.args[1], node.open == '[', node.close == ']'};
        if (InfinitySign(*piece.low) != 0) piece.low_closed = false;
        if (InfinitySign(*piece.high) != 0) piece.high_closed = false;
        return Normalize({piece});
      }
      case Kind::kSet: {
        RealSet points;
        for (const Node* arg : node.args) {
          if (!IsScalar(*arg)) return std::nullopt;
          points.push_back({arg, arg, true, true});
        }
        return Normalize(std::move(points));
      }
      case Kind::kUnion: {
        RealSet all;
        for (const Node* arg : node.args) {
          std::optional<RealSet> part = Build(*arg, subject);
          if (!part) return std::nullopt;
          all.insert(all.end(), part->begin(), part->end());
        }
        return Normalize(std::move(all));
      }
      case Kind::kIntersection:
      case Kind::kDifference: {
        std::optional<RealSet> left = Build(*node.args[0], subject),
                               right = Build(*node.args[1], subject);
        if (left && right && node.kind == Kind::kDifference) right = Complement(*right);
        if (!left || !right) return std::nullopt;
        return Intersect(*left, *right);
      }
      case Kind::kRelation:
        return Inequality(node, subject);
      default:
        return std::nullopt;
    }
  }

  std::optional<RealSet> Intersect(const RealSet& a, const RealSet& b) {
    RealSet both;
    for (const Piece& x : a) {
      for (const Piece& y : b) {
        Piece piece = x;
        std::optional<int> low = Order(*x.low, *y.low, work_),
                           high = Order(*x.high, *y.high, work_);
        if (!low || !high) return std::nullopt;
        if (*low < 0) {
          piece.low = y.low;
          piece.low_closed = y.low_closed;
        } else if (*low == 0) {
          piece.low_closed = x.low_closed && y.low_closed;
        }
        if (*high > 0) {
          piece.high = y.high;
          piece.high_closed = y.high_closed;
        } else if (*high == 0) {
          piece.high_closed = x.high_closed && y.high_closed;
        }
        both.push_back(piece);
      }
    }
    return Normalize(std::move(both));
  }

 private:
  const Node* Infinity(int sign) {
    const Node* infinity = arena_->New(Kind::kInfinity);
    return sign > 0 ? infinity : arena_->New(Kind::kNegative, {infinity});
  }

  // Sorts the pieces, drops empty ones and joins those that touch.
  std::optional<RealSet> Normalize(RealSet pieces) {
    RealSet kept;
    for (const Piece& p : pieces) {
      std::optional<int> order = Order(*p.low, *p.high, work_);
      if (!order) return std::nullopt;
      if (*order < 0 || (*order == 0 && p.low_closed && p.high_closed)) kept.push_back(p);
    }
    bool known = true;
    // A piece that begins earlier goes first; of two that begin at one point, the closed one.
    for (size_t i = 1; i < kept.size(); ++i) {
      for (size_t k = i; k > 0; --k) {
        std::optional<int> order = Order(*kept[k].low, *kept[k - 1].low, work_);
        if (!order) known = false;
        if (!order || *order > 0 ||
            (*order == 0 && (!kept[k].low_closed || kept[k - 1].low_closed)))
          break;
        std::swap(kept[k], kept[k - 1]);
      }
    }
    if (!known) return std::nullopt;
    RealSet joined;
    for (const Piece& p : kept) {
      if (!joined.empty()) {
        Piece& last = joined.back();
        std::optional<int> order = Order(*p.low, *last.high, work_);
        if (!order) return std::nullopt;
        if (*order < 0 || (*order == 0 && (p.low_closed || last.high_closed))) {
          std::optional<int> end = Order(*p.high, *last.high, work_);
          if (!end) return std::nullopt;
          if (*end > 0) {
            last.high = p.high;
            last.high_closed = p.high_closed;
          } else if (*end == 0) {
            last.high_closed = last.high_closed || p.high_closed;
          }
          continue;
        }
      }
      joined.push_back(p);
    }
    return joined;
  }

  std::optional<RealSet> Complement(const RealSet& set) {
    RealSet gaps;
    const Node* low = Infinity(-1);
    bool closed = false;
    for (const Piece& p : set) {
      if (InfinitySign(*p.low) != -1) gaps.push_back({low, p.low, closed, !p.low_closed});
      low = p.high;
      closed = !p.high_closed;
    }
    if (InfinitySign(*low) != 1) gaps.push_back({low, Infinity(1), closed, false});
    return Normalize(std::move(gaps));
  }

  static bool IsConstant(const Node& node) {
    return InfinitySign(node) != 0 || (IsScalar(node) && Variables(node).empty());
  }

  // |x| < b, |x| ≥ b for b > 0.
  std::optional<RealSet> Absolute(const Node& node, bool left, const Node** subject) {
    const Node* bound = node.args[left ? 1 : 0];
    std::optional<int> sign = Order(*arena_->Integer(0), *bound, work_);
    const Node* negative = arena_->New(Kind::kNegative, {bound});
    Relation r = node.relations[0];
    if (!sign || *sign >= 0 || r == Relation::kNotEqual || r == Relation::kIn) return std::nullopt;
    const bool strict = r == Relation::kLess || r == Relation::kGreater;
    const bool below = (r == Relation::kLess || r == Relation::kLessEqual) == left;
    *subject = (*subject)->args[0];
    if (below) return Normalize({{negative, bound, !strict, !strict}});
    return Normalize(
        {{Infinity(-1), negative, false, !strict}, {bound, Infinity(1), !strict, false}});
  }

  // a < subject ≤ b, subject > a, subject ∈ set, subject ≠ a.
  std::optional<RealSet> Inequality(const Node& node, const Node** subject) {
    if (node.relations[0] == Relation::kIn) {
      if (node.args.size() != 2) return std::nullopt;
      *subject = node.args[0];
      return Build(*node.args[1], subject);
    }
    int subject_at = -1;
    for (size_t i = 0; i < node.args.size(); ++i) {
      if (IsConstant(*node.args[i])) continue;
      if (subject_at >= 0 || !IsScalar(*node.args[i])) return std::nullopt;
      subject_at = static_cast<int>(i);
    }
    if (subject_at < 0 || node.args.size() > 3) return std::nullopt;
    *subject = node.args[static_cast<size_t>(subject_at)];
    if ((*subject)->kind == Kind::kFunction && (*subject)->function == Function::kAbs &&
        node.args.size() == 2)
      return Absolute(node, subject_at == 0, subject);
    RealSet set = {{Infinity(-1), Infinity(1), false, false}};
    for (size_t i = 0; i < node.relations.size(); ++i) {
      const bool left = static_cast<int>(i) + 1 == subject_at,
                 right = static_cast<int>(i) == subject_at;
      if (!left && !right) return std::nullopt;
      const Node* bound = left ? node.args[i] : node.args[i + 1];
      Relation relation = node.relations[i];
      if (left) {
        relation = relation == Relation::kLess           ? Relation::kGreater
                   : relation == Relation::kLessEqual    ? Relation::kGreaterEqual
                   : relation == Relation::kGreater      ? Relation::kLess
                   : relation == Relation::kGreaterEqual ? Relation::kLessEqual
                                                         : relation;
      }
      RealSet half;
      switch (relation) {
        case Relation::kLess:
          half = {{Infinity(-1), bound, false, false}};
          break;
        case Relation::kLessEqual:
          half = {{Infinity(-1), bound, false, InfinitySign(*bound) == 0}};
          break;
        case Relation::kGreater:
          half = {{bound, Infinity(1), false, false}};
          break;
        case Relation::kGreaterEqual:
          half = {{bound, Infinity(1), InfinitySign(*bound) == 0, false}};
          break;
        case Relation::kNotEqual:
          half = {{Infinity(-1), bound, false, false}, {bound, Infinity(1), false, false}};
          break;
        default:
          return std::nullopt;
      }
      std::optional<RealSet> both = Intersect(set, half);
      if (!both) return std::nullopt;
      set = *std::move(both);
    }
    return set;
  }

  Work* work_;
  Arena* arena_;

 public:
  std::optional<RealSet> Union(RealSet a, const RealSet& b) {
    a.insert(a.end(), b.begin(), b.end());
    return Normalize(std::move(a));
  }
};

}  // namespace

std::optional<RealSet> ToRealSet(const Node& node, Work* work, Arena* arena, const Node** subject) {
  return Builder(work, arena).Build(node, subject);
}

std::optional<RealSet> ListToRealSet(const Node& list, bool all, Work* work, Arena* arena,
                                     const Node** subject) {
  Builder builder(work, arena);
  std::optional<RealSet> result;
  for (const Node* arg : list.args) {
    std::optional<RealSet> part = builder.Build(*arg, subject);
    if (!part) return std::nullopt;
    result = !result ? part
             : all   ? builder.Intersect(*result, *part)
                     : builder.Union(*result, *part);
    if (!result) return std::nullopt;
  }
  return result;
}

std::optional<bool> SameSet(const RealSet& a, const RealSet& b, Work* work) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].low_closed != b[i].low_closed || a[i].high_closed != b[i].high_closed) return false;
    std::optional<int> low = Order(*a[i].low, *b[i].low, work),
                       high = Order(*a[i].high, *b[i].high, work);
    if (!low || !high) return std::nullopt;
    if (*low != 0 || *high != 0) return false;
  }
  return true;
}

}  // namespace e3::math
